"""Just enough precision, with proof: cheaper models whose decisions are certified."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from justenough.core.cases import Cases as Cases
    from justenough.core.certificate import Certificate as Certificate
    from justenough.core.contract import Clause as Clause
    from justenough.core.contract import Contract as Contract
    from justenough.core.evidence import Evidence as Evidence
    from justenough.core.evidence import Verdict as Verdict
    from justenough.core.subject import Choice as Choice
    from justenough.core.subject import Site as Site
    from justenough.core.subject import Subject as Subject
    from justenough.core.subject import Variant as Variant
    from justenough.deploy.cascade import write_cascade as cascade
    from justenough.deploy.certify import certify as certify
    from justenough.deploy.deployment import load as load
    from justenough.deploy.export import write_model as export
    from justenough.road import compress as compress

_WHERE = {
    "Cases": "core.cases:Cases",
    "Certificate": "core.certificate:Certificate",
    "Choice": "core.subject:Choice",
    "Clause": "core.contract:Clause",
    "Contract": "core.contract:Contract",
    "Evidence": "core.evidence:Evidence",
    "Site": "core.subject:Site",
    "Subject": "core.subject:Subject",
    "Variant": "core.subject:Variant",
    "Verdict": "core.evidence:Verdict",
    "cascade": "deploy.cascade:write_cascade",
    "certify": "deploy.certify:certify",
    "compress": "road:compress",
    "export": "deploy.export:write_model",
    "load": "deploy.deployment:load",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: importing the package imports nothing heavy."""
    if name not in _WHERE:
        raise AttributeError(f"module 'justenough' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    found = getattr(importlib.import_module(f"justenough.{module}"), attribute)
    globals()[name] = found
    return found
