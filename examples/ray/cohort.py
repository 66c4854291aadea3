#!/usr/bin/env python3
"""Attention maps of a whole cohort on a Ray cluster: each worker keeps the model loaded on a device of its own.

The driver hands out paths and ids, never voxels, and keeps the journal; the folders of images and maps must be
the same on all nodes. Ray places and restarts the workers. Give the same command again to go on where it stopped.
"""

import argparse
import os
import shutil
import sys

import actor
import manifest
from dispatch import Dispatcher, RunError
from journal import Journal, JournalError
from signals import Stopping

# Ray reads this when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray  # noqa: E402
from ray import cloudpickle  # noqa: E402

# The journal is all that the driver keeps, so that Ray's store of objects may be as small as Ray allows.
STORE_BYTES = 80 << 20


def say(message):
    """One line on stderr."""
    print(f"cohort: {message}", file=sys.stderr, flush=True)


def arguments():
    """What is asked for; everything after `--` is for medcam."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0],
        epilog="Options of `medcam cohort`, such as --layer, follow after --.",
    )
    parser.add_argument("model", metavar="MODEL.pt")
    parser.add_argument("manifest", metavar="MANIFEST.csv", help="columns image and, if wanted, id, mask, label")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of maps and journal")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="models loaded (default 1)")
    parser.add_argument("--num-gpus-per-worker", type=int, choices=(0, 1), default=0, help="default 0")
    parser.add_argument(
        "--num-cpus-per-worker", type=_positive, default=2, metavar="K", help="cores and threads (default 2)"
    )
    parser.add_argument("--medcam", default="medcam", metavar="PATH", help="the program (default: on PATH)")
    parser.add_argument("--address", help="an existing cluster: auto or HOST:PORT (default: one on this machine)")
    parser.add_argument("--retry-failed", action="store_true", help="failed and suspect cases once more")
    options = parser.parse_args(words[:cut])
    options.further = words[cut + 1 :]
    for name in ("-o", "--output", "--worker", "--resume", "--retry-failed", "--num-parts", "--part-id"):
        if any(word == name or word.startswith(name + "=") for word in options.further):
            parser.error(f"{name} after --: the driver sees to that itself")
    return options


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def worker_command(options):
    """The command of a worker, with paths that are right whatever folder it starts in."""
    program = options.medcam
    if os.path.dirname(program):
        program = os.path.abspath(program)
    if not options.address and shutil.which(program) is None:
        raise RunError(f"there is no program {program}: give --medcam PATH")
    model, output = (os.path.abspath(path) for path in (options.model, options.output))
    command = [program, "cohort", "--worker", model, "-o", output]
    if not any(word == "--threads" or word.startswith("--threads=") for word in options.further):
        command += ["--threads", str(options.num_cpus_per_worker)]
    return command + options.further


def start_ray(options, workers):
    """Join the cluster, or start one that has just what the workers need."""
    if options.address:
        ray.init(address=options.address)
        return
    ray.init(
        # Without this, RAY_ADDRESS in the environment would choose another cluster.
        address="local",
        num_cpus=workers * options.num_cpus_per_worker,
        # None: as many as there are.
        num_gpus=None if options.num_gpus_per_worker else 0,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
    )


def new_worker(options):
    """A function that creates an actor."""
    # By value, so that no node needs a copy of this folder.
    cloudpickle.register_pickle_by_value(actor)
    remote = ray.remote(actor.Worker).options(
        num_cpus=options.num_cpus_per_worker,
        num_gpus=options.num_gpus_per_worker,
        # Ray restarts a dead worker wherever there is room, as often as that takes. It may not repeat the
        # calls that the death cut off: it would repeat a case that kills each worker for ever, and the driver
        # could not count the deaths.
        max_restarts=-1,
        max_task_retries=0,
        # One more for `hello`.
        max_concurrency=Dispatcher.IN_FLIGHT + 1,
    )
    command = worker_command(options)
    return lambda: remote.remote(command, os.getcwd())


def run(options):
    """Returns whether all cases are done."""
    cases = manifest.read(options.manifest)
    command = worker_command(options)
    journal = Journal(options.output)
    try:
        left = [case for case in cases if not journal.is_over(case.id, options.retry_failed)]
        # Without a case left, one worker still tells whether model and options are those of the earlier run.
        workers = max(1, min(options.workers, len(left)))
        say(f"{len(cases)} cases, {len(cases) - len(left)} ended before; {workers} workers: {' '.join(command)}")
        with Stopping() as stopping:
            start_ray(options, workers)
            # Ray sets handlers of its own.
            stopping.take_over()
            dispatcher = Dispatcher(journal, stopping, say)
            plan = {"cases": len(cases), "cases_sha256": manifest.digest(cases)}
            create = new_worker(options)
            dispatcher.run(left, [create() for _ in range(workers)], plan, options.retry_failed)
        return summary(journal, cases, stopping)
    finally:
        ray.shutdown()
        journal.close()


def summary(journal, cases, stopping):
    """Says how many cases ended in which way; returns whether all are done."""
    count = {"done": 0, "failed": 0, "suspect": 0}
    for case in cases:
        if case.id in journal.ended:
            count[journal.ended[case.id]["status"]] += 1
    missing = len(cases) - sum(count.values())
    words = [f"{number} {status}" for status, number in count.items() if number or status == "done"]
    words += [f"{missing} not done"] if missing else []
    say(f"{', '.join(words)}; tables: medcam merge {journal.folder}")
    if stopping.signal and missing:
        say(f"stopped by {stopping.signal}; the same command goes on")
    return count["done"] == len(cases)


def main():
    """Returns the exit status: 0, 1 if a case is not done, 2 if the run cannot be begun."""
    options = arguments()
    try:
        return 0 if run(options) else 1
    except (manifest.ManifestError, JournalError, RunError, OSError) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("stopped at once; the same command goes on")
        return 130


if __name__ == "__main__":
    sys.exit(main())
