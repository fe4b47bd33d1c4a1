"""A real Slurm cluster on one machine, for the tests of what only a real Slurm can show.

    python -m tests.slurm.lab install              what is missing, from Debian's packages (exit code 3: cannot be had here)
    eval "$(python -m tests.slurm.lab up DIR)"     start it (or find it running) and point this shell at it
    python -m tests.slurm.lab down DIR             end its jobs and daemons, remove DIR

Everything of a lab lies in its folder: configuration, keys, sockets, logs, pid files. The nodes are several slurmd on the
loopback, their GPUs and surplus CPUs are claimed rather than real, and neither systemd nor cgroups are needed. Only the
standard library is used, so that any Python 3.11 can run this before the project is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests import packages
from tests.packages import PATH, SKIPPED, missing

PACKAGES = {  # program -> the Debian package that brings it
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "sacct": "slurm-client",
    "munged": "munge",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
}
HOST = socket.gethostname().partition(".")[0]
POLICY = Path("/usr/sbin/policy-rc.d")

# - cred_expire is also how long a requeued job waits before it may start again: 120 s unless told otherwise.
# - Towards slurmdbd the clients look for munge's socket in AccountingStoragePass, not in AuthInfo.
# - config_overrides believes the node lines below rather than the hardware.
# - A large MinJobAge keeps finished jobs in `squeue -t all`.
SLURM_CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={root}/state
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmdLogFile={root}/log/slurmd-%n.log
SlurmdSpoolDir={root}/spool/%n
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={root}/run/munge.socket
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
MinJobAge=86400
MaxArraySize=1001
FirstJobId={first_job}
ReturnToService=2
{gres}
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=hard Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
"""

SLURMDBD_CONF = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={accounting_port}
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.socket
SlurmUser=root
PidFile={root}/run/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
"""

DATABASE_SQL = """\
CREATE DATABASE slurm;
CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';
"""


def unavailable() -> str | None:
    """Why no lab can be started here, in one line; None where one can."""
    if os.geteuid() != 0:
        return "a Slurm lab needs root: slurmd starts jobs as their users"
    if absent := missing(PACKAGES):
        return f"no {', '.join(absent)}: run `python -m tests.slurm.lab install`"
    return None


def install() -> str | None:
    """Install what is missing; the reason, in one line, where that cannot be done."""
    if not missing(PACKAGES):
        return None
    with daemons_held_back() if os.geteuid() == 0 else contextlib.nullcontext():
        failure = packages.install(PACKAGES)
    return failure and f"Slurm tests skipped: {failure}"


def _capture(words: Sequence[str], env: dict[str, str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)


@contextlib.contextmanager
def daemons_held_back() -> Iterator[None]:
    """Keep packages from starting their daemons meanwhile; a policy that somebody else has put there stays as it is."""
    try:
        with POLICY.open("x") as file:
            file.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    try:
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, at random, so that labs started at once do not meet."""
    for _ in range(100):
        base = random.randrange(10_000, 20_000 - count)  # from 20,000 on the processes of a job meet, of any lab here
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise RuntimeError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def first_job() -> int:
    """Where job ids start: at random, so that no two labs hand out the same. Ids name files of results, and choose the port
    at which the processes of a job meet, which labs of one machine share."""
    return 1000 + secrets.randbelow(60_000_000)  # below Slurm's limit of 2**26


class Lab:
    """A cluster in the folder `root`, up within `with Lab(root) as lab:` and gone, folder and all, after it.

    Partition `main` is the default and preempts the two others. Jobs in `low` then get the signal they asked for by --signal
    and 20 s later SIGTERM; in `hard` both come at once. SIGKILL follows SIGTERM after KillWait (5 s). Nodes are named
    127.0.0.1, 127.0.0.2, ...: jobs are given a node's name as MASTER_ADDR, and these need no entry in /etc/hosts.
    """

    def __init__(self, root: Path | str, nodes: int = 2, cpus: int = 4, gpus: int = 2, port: int | None = None) -> None:
        self.root = Path(root).resolve()
        self.nodes = [f"127.0.0.{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.gpus = gpus
        self.port = port
        self._database_port = 0  # known from the start of the cluster

    @property
    def conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use this cluster."""
        return {"SLURM_CONF": str(self.conf), "PATH": PATH}

    def command(self, *words: str, timeout: float = 60) -> str:
        """What a Slurm command prints; RuntimeError with its complaint where it fails or does not end in time."""
        try:
            done = _capture(words, self._env(), timeout)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{shlex.join(words)}: no answer in {timeout} s") from error
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _env(self) -> dict[str, str]:
        # a lab started from within somebody's Slurm job must not take that job's settings for its own
        outer = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        return outer | self.environment()

    # -- up

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the cluster, with no jobs; one that already runs in this folder is left as it is."""
        if self.is_up():
            return
        if reason := unavailable():
            raise RuntimeError(reason)
        self._make_folder()
        try:
            self._start_munge()
            self._start_database()
            self._start_accounting()
            self.start_controller()
            self._start_nodes()
        except BaseException:
            self.stop(keep=True)  # the logs are wanted
            raise

    def is_up(self) -> bool:
        """Whether every daemon of this folder runs and the controller answers."""
        return self.conf.exists() and all(map(self._pid, self._daemons())) and self._succeeds("scontrol", "ping")

    def _daemons(self) -> list[str]:
        """In the order of their end; the nodes as the folder has them, which another process may have started."""
        nodes = sorted(f"slurmd-{path.name}" for path in (self.root / "spool").iterdir())
        return [*nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"]

    def _node_states(self) -> list[str]:
        return self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split()

    def _make_folder(self) -> None:
        """An empty lab; what is left of an earlier one goes, and anything else is not touched."""
        if self.conf.exists():
            self.stop()
        elif self.root.is_dir() and any(self.root.iterdir()):
            raise RuntimeError(f"{self.root} holds something that is not a lab")
        longest = self.root / "spool" / self.nodes[-1] / f"{self.nodes[-1]}_{2**26}.{2**32 - 1}"
        if len(os.fsencode(longest)) > 107:
            raise RuntimeError(f"{self.root}: too long a path for the sockets below it")
        for name in ("etc", "run", "log", "state", "db", "dev", "tmp", *(f"spool/{node}" for node in self.nodes)):
            (self.root / name).mkdir(parents=True)
        self._configure()

    def _configure(self) -> None:
        port = self.port or free_ports(3 + len(self.nodes))
        self._database_port = port + 2
        values = {
            "root": self.root,
            "host": HOST,
            "port": port,
            "accounting_port": port + 1,
            "database_port": port + 2,
            "password": secrets.token_hex(8),
            "first_job": first_job(),
            "gres": "GresTypes=gpu" if self.gpus else "",
            "nodes": "\n".join(self._node_line(port + 3 + i, name) for i, name in enumerate(self.nodes)),
        }
        self._write("munge.key", secrets.token_hex(64))
        self._write("database.sql", DATABASE_SQL.format(**values))
        self._write("slurmdbd.conf", SLURMDBD_CONF.format(**values))
        self._write("gres.conf", self._gpu_line())
        self._write("slurm.conf", SLURM_CONF.format(**values), mode=0o644)

    def _node_line(self, port: int, name: str) -> str:
        gres = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        address = f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname={HOST} Port={port}"
        return f"{address} CPUs={self.cpus} RealMemory=512000{gres} State=UNKNOWN"

    def _gpu_line(self) -> str:
        """Fake GPUs: each must be a character device of its own name."""
        for number in range(self.gpus):
            (self.root / "dev" / f"gpu{number}").symlink_to("/dev/null")
        return f"Name=gpu File={self.root}/dev/gpu[0-{self.gpus - 1}]\n" if self.gpus else ""

    def _write(self, name: str, text: str, mode: int = 0o600) -> None:
        path = self.root / "etc" / name
        path.touch(mode)
        path.chmod(mode)
        path.write_text(text)

    def _start_munge(self) -> None:
        run, log, etc = self.root / "run", self.root / "log", self.root / "etc"
        # --force: munged refuses folders that others may write to, or (as pytest's are) may not enter; only root is here
        self._daemon(
            "munged",
            *("munged", "--force", f"--key-file={etc}/munge.key", f"--socket={run}/munge.socket"),
            *(f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log", f"--seed-file={run}/munged.seed"),
        )
        self._await("munged", (run / "munge.socket").is_socket)

    def _start_database(self) -> None:
        run, data = self.root / "run", self.root / "db"
        # Its own folder for temporary tables: one that starts removes those of another in a folder that they share.
        user = ("--no-defaults", "--user=root", f"--datadir={data}", f"--tmpdir={self.root}/tmp")
        self._daemon(
            "mariadbd",
            *("mariadb-install-db", *user, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"),
        )
        self._daemon(
            "mariadbd",
            # it does not leave its parent by itself, and must not become this process's zombie
            *("setsid", "--fork", "mariadbd", *user, f"--socket={run}/mysql.sock", f"--pid-file={run}/mariadbd.pid"),
            *("--bind-address=127.0.0.1", f"--port={self._database_port}", f"--init-file={self.root}/etc/database.sql"),
            *("--skip-name-resolve", "--skip-log-bin", "--performance-schema=off", "--innodb-buffer-pool-size=32M"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"),
        )
        self._await("mariadbd", lambda: _answers(self._database_port))

    def _start_accounting(self) -> None:
        self._daemon("slurmdbd", "slurmdbd")
        self._await("slurmdbd", lambda: self._succeeds("sacctmgr", "-n", "list", "cluster"))

    def start_controller(self) -> None:
        """Start slurmctld, with the jobs it had if it was stopped before; returns when it answers."""
        self._daemon("slurmctld", "slurmctld")
        self._await("slurmctld", lambda: self._succeeds("scontrol", "ping"))

    def stop_controller(self) -> None:
        """End slurmctld alone, as in an outage; running jobs go on. Returns when it is gone."""
        self._end("slurmctld")

    def lose_node(self, node: str) -> None:
        """End a node's slurmd and tell the controller that the node is down; its jobs' processes live on for a while."""
        self._end(f"slurmd-{node}")
        self.command("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def bring_back_node(self, node: str) -> None:
        """Undo `lose_node`; returns when jobs can start there."""
        self._daemon(f"slurmd-{node}", "slurmd", "-N", node)

        def is_up() -> bool:
            if not {"down", "drained"} & {state.strip("*") for state in self._node_states()}:
                return True
            self._succeeds("scontrol", "update", f"nodename={node}", "state=resume")  # refused if it came up meanwhile
            return False

        self._await("slurmctld", is_up)

    def _start_nodes(self) -> None:
        for node in self.nodes:
            self._daemon(f"slurmd-{node}", "slurmd", "-N", node)
        self._await("slurmctld", lambda: self._node_states() == ["idle"] * len(self.nodes))

    def _daemon(self, name: str, *words: str) -> None:
        """Run a command that leaves a daemon behind; the log takes its output, as a pipe would never be closed."""
        with self._log(name).open("ab") as log:
            code = subprocess.run(
                words, env=self._env(), cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            ).returncode
        if code:
            raise RuntimeError(f"{words[0]}: exit code {code}\n{self._tail(name)}")

    def _await(self, name: str, ready: Callable[[], bool], seconds: float = 120) -> None:
        """Until the daemon itself lives and is ready: behind its port may be another's."""
        if not _poll(lambda: self._pid(name) is not None and ready(), seconds):
            raise RuntimeError(f"{name} does not answer after {seconds} s\n{self._tail(name)}")

    def _succeeds(self, *words: str) -> bool:
        try:
            self.command(*words, timeout=10)
        except RuntimeError:
            return False
        return True

    def _log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def _tail(self, name: str, lines: int = 15) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-lines:])

    # -- jobs

    def wait_idle(self, seconds: float = 30) -> None:
        """Return when no job is left and every node is idle; RuntimeError after `seconds`."""
        if not _poll(lambda: not self._jobs() and set(self._node_states()) == {"idle"}, seconds):
            raise RuntimeError(f"not idle after {seconds} s: nodes {self._node_states()}, jobs:\n{self._jobs()}")

    def _jobs(self) -> str:
        return self.command("squeue", "-h", "-a", "-r", "-o", "%i|%T|%r")

    def cancel_all(self) -> None:
        """Cancel every job; they end within KillWait (5 s), see `wait_idle`."""
        self.command("scancel", "--quiet", "--user", pwd.getpwuid(os.geteuid()).pw_name)

    # -- down

    def stop(self, keep: bool = False) -> None:
        """End the jobs and the daemons of this folder, whoever started them, and remove it; `keep` spares the files."""
        if not self.conf.exists():
            return
        if any(self._pid(name) for name in self._daemons() if name.startswith("slurmd-")):
            with contextlib.suppress(RuntimeError):
                self._end_jobs()
        for name in self._daemons():
            self._end(name)
        if not keep:
            shutil.rmtree(self.root)

    def _end_jobs(self) -> None:
        """Through the controller: a job's processes outlive slurmd, and only Slurm knows which they are."""
        if not self._pid("slurmctld"):
            self.start_controller()
        self.cancel_all()
        _poll(lambda: not self._jobs(), 20)

    def _end(self, name: str) -> None:
        pid = self._pid(name)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if pid and self._pid(name) == pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                _poll(lambda: self._pid(name) != pid, 15)

    def _pid(self, name: str) -> int | None:
        """The process of a daemon while it lives: a pid file outlasts it, and its number may be another's by now."""
        try:
            pid = int((self.root / "run" / f"{name}.pid").read_text())
            head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")  # "PID (NAME) STATE ..."
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        ours = f"SLURM_CONF={self.conf}".encode() in environ  # another lab's daemon bears the same name
        return pid if ours and head.partition("(")[2] == name.partition("-")[0] and tail.split()[0] != "Z" else None


def _poll(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def main(argv: list[str] | None = None) -> int:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.lab", description="a real Slurm cluster on this machine")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("install", help=f"install what is missing; exit code {SKIPPED} where that cannot be done")
    verbs.add_parser("up", help="start a cluster in DIR, print the export line").add_argument("dir", type=Path, metavar="DIR")
    verbs.add_parser("down", help="end the cluster of DIR, remove DIR").add_argument("dir", type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    if args.verb == "install":
        reason = install()
        print(reason or "", end="\n" if reason else "")
        return SKIPPED if reason else 0
    lab = Lab(args.dir)
    if args.verb == "down":
        lab.stop()
        return 0
    lab.start()
    print(f"export SLURM_CONF={shlex.quote(str(lab.conf))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
