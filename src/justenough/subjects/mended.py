"""Files of repaired variants: the same bytes again from nothing but the names of the repairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from justenough.core.subject import Site, Variant
from justenough.subjects.local_choices import FORMS, LINEAR, block_of
from justenough.subjects.quantize import Ranges, write_variant
from justenough.subjects.repair_graph import linear_nodes
from justenough.subjects.repair_statistics import Feed
from justenough.subjects.repairs import block_codes, repair
from justenough.transforms.gptq import BlockCodes

# Codes of 8 bits gain too little by GPTQ for what it takes.
MOST_BITS = 4


@dataclass(frozen=True, eq=False)
class Mended:
    """A prepared model after some repairs, and what else its variant's file is written from.

    Attributes:
        model: Prepared graph.
        ranges: Its calibrated ranges.
        rounding: Codes of weights by site, of those that are not rounded to nearest.
    """

    model: onnx.ModelProto
    ranges: Ranges
    rounding: Mapping[str, BlockCodes]

    def repaired(self, name: str, sites: Sequence[Site], variant: Variant, feed: Feed) -> "Mended":
        """This with one more repair of `repairs.REPAIRS`; itself where that changes nothing.

        `rounded` also finds the codes of weights of 4 and 2 bits, by GPTQ.

        Raises:
            InputError: An unknown repair.
        """
        model, ranges = repair(name, self.model, sites, variant, self.ranges, feed)
        rounding = dict(self.rounding)
        if name == "rounded":
            rounding |= local_rounding(model, sites, variant, feed)
        if model == self.model and rounding.keys() == self.rounding.keys():
            return self
        return replace(self, model=model, ranges=ranges, rounding=rounding)

    def write(self, sites: Sequence[Site], variant: Variant, path: Path) -> None:
        """Write `variant` of this as an ONNX file."""
        write_variant(self.model, sites, variant, self.ranges, path, self.rounding)


def local_rounding(
    model: onnx.ModelProto, sites: Sequence[Site], variant: Variant, feed: Feed
) -> dict[str, BlockCodes]:
    """Codes by GPTQ of the weights that `variant` keeps in 4 or 2 bits, by site."""
    linears, picks = linear_nodes(model), dict(variant.picks)
    groups: dict[tuple[int, int], dict[str, str]] = {}
    for site in sites:
        form = FORMS.get(picks.get(site.name, ""))
        linear = linears.get(site.nodes[0])
        if form is None or linear is None or form.way != "blocks" or site.op not in LINEAR:
            continue
        if form.choice.bits <= MOST_BITS:
            block = block_of(form.choice.name, linear.inputs)
            groups.setdefault((form.choice.bits, block), {})[linear.weight] = site.name
    out: dict[str, BlockCodes] = {}
    for (bits, block), names in groups.items():
        layers = [x for x in linears.values() if x.weight in names]
        for weight, codes in block_codes(model, layers, feed, bits=bits, block=block):
            out[names[weight]] = codes
    return out
