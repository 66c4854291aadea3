"""The parts of gpu-check: the machine, the steps and how they are run, the report."""
