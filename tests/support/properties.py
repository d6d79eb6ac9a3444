"""How properties are tested: many drawn inputs, and no clock."""

from hypothesis import HealthCheck, settings

untimed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
