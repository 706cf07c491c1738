"""The skin question as a contract, fixed before a network was made cheaper."""

from justenough.core.contract import Contract, parse_clause

# A lesion is changed when the decision on any image of it is. 598 lesions certify 99.5 % if
# none of them changes, which is why half of all lesions is kept from training.
CONTRACT = Contract(
    (parse_clause("decision_stability >= 0.995"),),
    alpha=0.05,
    population="dermatoscopic images as in HAM10000, by lesion",
)
