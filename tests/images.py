"""Images that a suite of tests builds from this tree on the Docker engine of this machine, and removes."""

import io
import os
import subprocess
from pathlib import Path

from docker import DockerClient
from docker.errors import ImageNotFound

ROOT = Path(__file__).resolve().parents[1]
OFFICIAL = "python:3.12-slim-bookworm"


class Images:
    """The images of one suite, whose name begins their tags and is in their label."""

    def __init__(self, client: DockerClient, suite: str) -> None:
        self._client, self._suite = client, suite

    def built(self) -> str:
        """The tag of the image, which it builds."""
        tag = f"{self._suite}:image"
        arguments = {"BASE_IMAGE": self.base(), "BUILD_ID": self._suite}
        flags = [flag for name, value in arguments.items() for flag in ("--build-arg", f"{name}={value}")]
        _run(["docker", "build", "--quiet", "--tag", tag, *flags, str(ROOT)])
        return tag

    def base(self, *packages: str) -> str:
        """What the image is built on, with more Debian packages where they are asked for.

        What the environment says; an image that is here; else a local look-alike where one can be made, which needs
        root on a Debian; else what the registry has.
        """
        named = os.environ.get("COSPAN_BASE_IMAGE")
        if not packages and (named or self._is_here(OFFICIAL)):
            return named or OFFICIAL
        tag = f"{self._suite}-base{'-'.join(('', *packages))}"
        label = f"dev.cospan.build={self._suite}"
        if os.geteuid() == 0 and Path("/etc/debian_version").exists() and not self._is_here(OFFICIAL):
            environment = {**os.environ, "EXTRA_PACKAGES": " ".join(packages), "LABEL": label}
            _run([str(ROOT / "deploy" / "make-base-image.sh"), tag], environment)
            return tag
        self._client.images.pull(OFFICIAL)
        if not packages:
            return OFFICIAL
        install = f"RUN apt-get -qq update && apt-get -qq -y install --no-install-recommends {' '.join(packages)}"
        recipe = f"FROM {OFFICIAL}\n{install}\nLABEL {label}\n"
        self._client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True)
        return tag

    def remove(self) -> None:
        """Removes all of them."""
        label = {"label": f"dev.cospan.build={self._suite}"}
        for image in self._client.images.list(filters=label):
            for tag in image.tags or [image.id]:
                self._client.images.remove(tag, force=True)
        for image in self._client.images.list(filters=label | {"dangling": True}):
            self._client.images.remove(image.id, force=True)

    def left(self) -> list[str]:
        """Those that are there."""
        return [
            str(image.tags or image.id)
            for image in self._client.images.list(all=True)
            if any(tag.startswith(self._suite) for tag in image.tags)
            or (image.labels or {}).get("dev.cospan.build") == self._suite
        ]

    def _is_here(self, tag: str) -> bool:
        try:
            self._client.images.get(tag)
        except ImageNotFound:
            return False
        return True


_SECONDS = 900.0
"""For a command that installs what an image holds, on a machine that has much else to do: it hangs after that."""


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
