"""What becomes of each ViT of timm as a teacher without a file; a script, run by hand.

Each model is read at tiny size with perturbed weights and held to the contract, or refused in one line. Prints a
Markdown table of the outcomes, and what failed. Usage: python -m tests.timm_models [PATTERN ...]
"""

import sys
from collections import defaultdict

import timm
import torch

import families
from benchmark.tools.check import contract
from families.spec import UserError, one_line

PATTERNS = ("*vit*", "*beit*", "*eva*", "*deit*", "*cait*", "*dino*", "*aim*", "*sapiens*", "*clip*", "*siglip*", "*hiera*")


def outcome(name):
    """`read`, `refused: why` or `WRONG: what` of a model's name."""
    try:
        (size,) = families.spec(f"timm:{name}").sizes
    except UserError as error:
        why = str(error).removeprefix(f"timm:{name}").strip()
        return "refused: " + (why.split(";")[0] if " is a " not in f" {why}" else "class " + why.split()[2].rstrip(";"))
    failed = [each for each in contract(f"timm:{name}", size) if not each.holds]
    return "read" if not failed else f"WRONG: {failed[0].claim[:60]}: {one_line(failed[0].found)[:160]}"


def main(patterns):
    torch.set_num_threads(1)
    found = defaultdict(list)
    for name in dict.fromkeys(name for pattern in patterns for name in timm.list_models(pattern)):
        found[outcome(name)].append(name)
    print("| outcome | models | such as |\n|---|---|---|")
    for what, names in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"| {what} | {len(names)} | {', '.join(names[:3])} |")


if __name__ == "__main__":
    main(sys.argv[1:] or PATTERNS)
