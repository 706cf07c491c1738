"""The demo: a nodule model, its cases, and the contract, fixed before results were seen."""

from pathlib import Path

from justenough.core.contract import Contract, parse_clause
from justenough.studies.nodules import data

# Fixed before any result was seen: the decision is "rated above 3, the indeterminate middle";
# a patient is changed when any row of theirs is; 99 % of patients, at 95 % confidence.
# 624 patients certify 99 %, and 99.5 % only with none changed.
CONTRACT = Contract(
    (parse_clause("decision_stability(output=malignancy, cut=0) >= 0.99"),),
    alpha=0.05,
    population="radiologists' lung-nodule annotations as in LIDC-IDRI, by patient",
)
MODEL: Path = data.MODEL
