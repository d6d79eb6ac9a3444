"""/models: requests without fields."""

from conformance.fields.probe import Endpoint

ENDPOINTS = (
    Endpoint(method="GET", path="/models"),
    Endpoint(method="GET", path="/models/{model}"),
    Endpoint(method="DELETE", path="/models/{model}"),
)
