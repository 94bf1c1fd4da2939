"""Run MockWise for a parent process: the config's path on the first line of stdout, the end with the end of stdin."""

import sys

from wise_creds.testing import MockWise

if __name__ == "__main__":
    with MockWise() as wise:
        wise.write_samples()
        print(wise.config, flush=True)
        sys.stdin.read()
