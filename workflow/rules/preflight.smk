# A run that cannot finish here stops before its first job, with everything that is missing at once.
from hqdm_bench.cli.preflight import preflight


# Runs once, in the process the user started: not in a dry run, and not in the processes of jobs.
onstart:
    if not workflow.touch:
        obstacle = preflight(
            CATALOGUE, Path("."), workflow.dag.needrun_jobs(), workflow.local_exec
        )
        if obstacle:
            raise WorkflowError(obstacle)
