"""The rules' shell commands, read from their files as text, without what depends on the machine."""

import ast
import functools
import re
from pathlib import Path

RULE = re.compile(r"^(?:rule|checkpoint) (\w+):$|^use rule (\w+) as (\w+) with:$", re.MULTILINE)
SHELL = re.compile(r"^    shell:\n((?:        .*\n|\n)+)", re.MULTILINE)
# Flags on which no artifact's content depends: how much of a machine is used, where the log goes, what is made along
# with the artifact, and what the key holds anyway.
MACHINE = re.compile(
    r"\s*(?:--threads \{threads\}|&> \{log\}|\| tee \{log\}|\{params\.(?:allocator|launcher|vllm|compute)\}"
    r"|HF_HUB_OFFLINE=1|--code \{params\.code:q\}|--also \{params\.also:q\}|--uses \{params\.uses:q\}"
    r"|--record \{output\.record\})"
)


@functools.cache
def commands_of(folder: Path) -> dict[str, str]:
    """The command of each rule in a folder's `*.smk` files, by the rule's name; "" for a rule that runs none."""
    commands: dict[str, str] = {}
    used: dict[str, str] = {}
    for path in sorted(Path(folder).glob("*.smk")):
        text = path.read_text(encoding="utf-8")
        starts = list(RULE.finditer(text))
        ends = [found.start() for found in starts[1:]] + [len(text)]
        for found, end in zip(starts, ends if starts else [], strict=True):
            body = text[found.end() : end]
            shell = SHELL.search(body)
            name = found[1] or found[3]
            if shell:
                commands[name] = " ".join(MACHINE.sub("", ast.literal_eval(f"({shell[1]})")).split())
            elif found[2]:
                used[name] = found[2]
            else:
                commands[name] = ""
    return commands | {name: commands[origin] for name, origin in used.items()}
