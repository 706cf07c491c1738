"""The X-ray question as a contract, fixed before a network was made cheaper."""

from justenough.core.contract import Contract, parse_clause

# A patient is changed when the decision on any film of theirs is. 598 groups certify 99.5 %
# if none of them changes, which is why half of all groups is kept from training.
CONTRACT = Contract(
    (parse_clause("decision_stability >= 0.995"),),
    alpha=0.05,
    population="chest X-rays of children as published by Kermany et al. 2018, by patient",
)
