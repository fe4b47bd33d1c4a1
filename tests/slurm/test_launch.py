"""Study main of one family on a real Slurm: the numbers are those of one process, and nothing is submitted twice."""

from .conftest import Site, protocol


def test_a_study_is_trained_in_parallel(lab, tmp_path, expected):
    site = Site(tmp_path, lab, protocol(), seeds="0,1", family="deit3")
    out = site.bench("run")
    assert "submitted 13 runs as 3 jobs" in out and "bench status" in out
    waiting = site.counts()
    assert sum(waiting.values()) == 13 and waiting.get("queued", 0) + waiting.get("running", 0) + waiting.get("finished", 0) == 13
    site.until_over()
    assert site.counts() == {"finished": 13}
    assert site.numbers() == expected(site)
    out = site.bench("run")
    assert "0 to train" in out and "standard-copy" in out, "once all is done it shows the leaderboard"
