#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for tests: munged, slurmctld and slurmd.
#
#   tests/slurm/start_slurm.sh start          start it; the partition is called "debug"
#   tests/slurm/start_slurm.sh stop           stop it and remove what it wrote
#   tests/slurm/start_slurm.sh run COMMAND    start it, run the command, stop it
#   tests/slurm/start_slurm.sh jobs           what Slurm has recorded of finished jobs, one a line
#
# Needs root and Debian's packages: apt-get install slurm-wlm munge
#
# The configuration goes to Slurm's default place. A SLURM_CONF variable would not do: Snakemake's
# executor plugin drops the SLURM_* variables before the inner srun of a job. A slurm.conf that
# this script has not written is never touched.
set -euo pipefail

MARK="# Written by tests/slurm/start_slurm.sh; removed by its 'stop'."
CONF="/etc/slurm/slurm.conf"
STATE="/run/hqdm-bench-slurm" # pid files, state, logs
WAIT=30                       # seconds until the node must be idle

die() {
	echo "start_slurm.sh: error: $*" >&2
	exit 1
}

check() {
	[[ $(id -u) == 0 ]] || die "needs root: slurmd starts jobs as other users"
	local program
	for program in munged slurmctld slurmd sinfo srun; do
		command -v "$program" >/dev/null ||
			die "$program is not installed; apt-get install slurm-wlm munge"
	done
	if [[ -e $CONF ]] && ! is_ours; then
		die "$CONF belongs to another Slurm installation; this script does not replace it"
	fi
}

is_ours() { [[ -e $CONF ]] && [[ $(head -n 1 "$CONF") == "$MARK" ]]; }

cpus() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc; } # which nproc would obey

write_conf() {
	local host cpus memory
	host=$(hostname -s)
	cpus=$(cpus)
	memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
	mkdir -p "$(dirname "$CONF")" "$STATE/state" "$STATE/spool"
	cat >"$CONF" <<-CONF
		$MARK
		ClusterName=one-machine
		SlurmctldHost=$host(127.0.0.1)
		SlurmUser=root
		SlurmdUser=root
		AuthType=auth/munge
		CryptoType=crypto/munge
		# No cgroups: they are seldom writable in a container.
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		JobAcctGatherType=jobacct_gather/none
		AccountingStorageType=accounting_storage/none
		JobCompType=jobcomp/filetxt
		JobCompLoc=$STATE/jobs.txt
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU_Memory
		# Finished jobs stay visible to squeue, which tells Snakemake how they ended.
		MinJobAge=600
		ReturnToService=2
		MpiDefault=none
		StateSaveLocation=$STATE/state
		SlurmdSpoolDir=$STATE/spool
		SlurmctldPidFile=$STATE/slurmctld.pid
		SlurmdPidFile=$STATE/slurmd.pid
		SlurmctldLogFile=$STATE/slurmctld.log
		SlurmdLogFile=$STATE/slurmd.log
		SlurmdParameters=config_overrides
		NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
		PartitionName=debug Nodes=node1 Default=YES MaxTime=INFINITE State=UP
	CONF
}

start_munge() {
	munge --no-input >/dev/null 2>&1 && return # one runs already; it stays after stop
	[[ -e /etc/munge/munge.key ]] || mungekey --create --keyfile=/etc/munge/munge.key
	install -d -o munge -g munge -m 0755 /run/munge
	install -d -o munge -g munge -m 0700 /var/log/munge /var/lib/munge
	chown munge:munge /etc/munge/munge.key
	chmod 0600 /etc/munge/munge.key
	runuser -u munge -- munged
	cp /run/munge/munged.pid "$STATE/munged.pid"
}

start() {
	check
	! is_ours || die "it runs already, or was not stopped: $0 stop"
	write_conf
	start_munge || fail "munged did not start"
	slurmctld || fail "slurmctld did not start"
	slurmd || fail "slurmd did not start"
	local second
	for ((second = 0; second < WAIT; second++)); do
		if [[ $(sinfo --noheader --format=%T 2>/dev/null) == idle ]]; then
			echo "Slurm runs: $(slurmctld -V), partition debug, $(cpus) CPUs" >&2
			return
		fi
		sleep 1
	done
	fail "the node is not idle after $WAIT s"
}

fail() { # a start that failed leaves nothing behind but the reason
	tail -n 20 "$STATE"/slurm*.log >&2 || true
	stop
	die "$*"
}

end_process() { # by pid file; waits, because a second start needs the ports
	local pid attempt
	[[ -s $1 ]] || return 0
	pid=$(<"$1")
	kill "$pid" 2>/dev/null || return 0
	for ((attempt = 0; attempt < 100; attempt++)); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.1
	done
	kill -9 "$pid" 2>/dev/null || true
}

stop() {
	is_ours || return 0
	scancel --partition=debug 2>/dev/null || true
	local daemon
	for daemon in slurmd slurmctld munged; do
		end_process "$STATE/$daemon.pid"
	done
	rm -rf "$STATE" "$CONF"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
jobs) cat "$STATE/jobs.txt" ;;
run)
	[[ $# -gt 1 ]] || die "usage: $0 run COMMAND [ARGUMENT...]"
	start
	trap stop EXIT
	shift
	# In the background, so that a signal to this script reaches the command at once.
	"$@" &
	command=$!
	trap 'kill "$command" 2>/dev/null' INT TERM
	while ! wait "$command"; do
		status=$?
		kill -0 "$command" 2>/dev/null || exit "$status" # else only the wait was interrupted
	done
	;;
*) die "usage: $0 start | stop | jobs | run COMMAND [ARGUMENT...]" ;;
esac
