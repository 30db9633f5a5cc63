"""Parameters with some of them replaced."""

from hpl.config import Params


def with_profile(params: Params, **sections: object) -> Params:
    """The parameters with some sections of the active profile replaced."""
    profiles = {**params.profiles, params.profile: params.active.model_copy(update=sections)}
    return params.model_copy(update={"profiles": profiles})
