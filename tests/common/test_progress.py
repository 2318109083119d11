from hqdm_bench.common import progress
from hqdm_bench.common.progress import Progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def test_log_gets_a_line_at_once_and_one_per_interval_with_rate_and_eta(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with Progress("train", total=100) as bar:
        for step in range(1, 101):
            clock.now += 1.0
            bar.update(step, loss=step / 10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0] == "train: 1/100  loss 0.1"
    assert lines[1] == "train: 30/100  loss 3  1.00/s  ETA 70 s"
    assert lines[-1] == "train: done, 100 in 100 s"


def test_resumed_job_does_not_count_earlier_work_in_its_rate(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with Progress("train", total=100) as bar:
        for step in range(51, 101):
            clock.now += 1.0
            bar.update(step)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: 51/100"
    assert "1.00/s" in lines[1]


def test_failed_job_does_not_say_done(capsys):
    try:
        with Progress("train", total=3):
            raise ValueError
    except ValueError:
        pass
    assert capsys.readouterr().err == ""
