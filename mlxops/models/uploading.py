"""A model's folder onto the hub, by `huggingface_hub`: all of its files in one commit, or none of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlxops.errors import BadRequest, Failed, MlxopsError, Refused
from mlxops.foreign import foreign_code

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGN_IN = "`hf auth login` signs in, or set HF_TOKEN; https://huggingface.co/settings/tokens makes tokens"


def check(repository: str) -> None:
    """Raise `BadRequest` for what is no id of a repository, and where the hub knows nobody by the token that is here.

    Raises `Failed` where the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is, at run time alone

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise BadRequest(
            f"{repository!r} is no id of a repository on the hub",
            hint="`--upload` takes NAME, or USER/NAME: letters, digits, `-`, `_` and `.`",
        ) from None
    with _hub_errors(repository):
        HfApi().whoami()


def upload(
    folder: Path, repository: str, *, private: bool, leave_out: Sequence[str], message: str, shows_bars: bool
) -> str:
    """Make the repository where it is not there, and put a folder's files into it; the address of the repository.

    `shows_bars` has the client show on stderr how far it is. What the hub has already is not sent again, so that an
    upload that broke off is completed by the next one. Raises as `check` does, and `Refused` where the token may not
    write there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not shows_bars:
        disable_progress_bars()
    api = HfApi()
    with _hub_errors(repository):
        made = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, ignore_patterns=list(leave_out), commit_message=message
        )
    return str(made)


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    with foreign_code(lambda words, raised: _error(words, raised, repository)):
        yield


def _error(words: str, raised: BaseException, repository: str) -> MlxopsError:
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    response = getattr(raised, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(raised, LocalTokenNotFoundError) or status == 401:
        return BadRequest("the hub does not know who you are: there is no token, or not a valid one", hint=_SIGN_IN)
    if status == 403:
        return Refused(
            f"the hub does not let your token write to {repository!r}",
            hint="take a token with the role write, and a repository of your own or of an organization of yours",
        )
    if status == 429:
        after = getattr(response, "headers", {}).get("Retry-After")
        when = f"in {after} seconds" if after else "later"
        return Failed("the hub is asked too often", hint=f"give the same command again {when}")
    if isinstance(raised, OfflineModeIsEnabled):
        return Failed("HF_HUB_OFFLINE is set, so the hub is not asked", hint="unset HF_HUB_OFFLINE")
    if status is not None:
        return Failed(
            f"the hub answered with {status}: {words}", hint="the same command again sends only what is missing"
        )
    return Failed(f"the hub cannot be reached: {words}", hint="is there a network? the same command again uploads")
