"""MockWise in a process of its own, so that its work does not count as the client's; told by lines of JSON what to do."""

from __future__ import annotations

import json
import sys

from wise_creds.testing import MockWise


def main() -> None:
    """Answer each command on stdin with a line on stdout."""
    with MockWise() as wise:
        print(wise.config, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            wise.state.token_life = command.get("token_life", wise.state.token_life)
            wise.state.delay = command.get("delay", wise.state.delay)
            if "faults" in command:
                wise.state.faults.clear()
                wise.state.faults.extend(command["faults"])
            print(json.dumps({"token_requests": wise.token_requests}), flush=True)


if __name__ == "__main__":
    main()
