"""The eight analyses by name, in the order of the document's full stack."""

from collections.abc import Callable, Mapping

from justenough.studies.heavystats.montecarlo import montecarlo
from justenough.studies.heavystats.posteriors import approximations, posterior
from justenough.studies.heavystats.resampled import bootstrap, permutation
from justenough.studies.heavystats.searches import architectures, factors, search
from justenough.studies.heavystats.work import Said, Work

ANALYSES: Mapping[str, Callable[[Work], Said]] = {
    "montecarlo": montecarlo,
    "posterior": posterior,
    "variational": approximations,
    "bootstrap": bootstrap,
    "permutation": permutation,
    "search": search,
    "factors": factors,
    "architectures": architectures,
}
