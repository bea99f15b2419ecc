"""/v1/features: what is metered and sold."""

from starlette.routing import BaseRoute

from catalog import features
from catalog.fixed import feature_update
from catalog.tables import FeatureRow
from console.entities import Entity
from schemas.documents import FeatureDocument
from schemas.features import FeatureSearch, FeatureUpdate, NewFeature

FEATURES = Entity(
    path="/v1/features",
    one="feature",
    row=FeatureRow,
    gives=FeatureDocument,
    page=FeatureSearch,
    search=features.search,
    new=NewFeature,
    create=features.create,
    changed=FeatureUpdate,
    changeable=feature_update,
    update=features.update,
    archive=features.archive,
)


def routes() -> list[BaseRoute]:
    """The routes of features. Archiving one keeps its usage; new events don't count."""
    return FEATURES.routes()
