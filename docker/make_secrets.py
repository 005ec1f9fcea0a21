"""Make the passwords of docker/compose.yaml, once: python docker/make_secrets.py

Into docker/secrets, which git ignores. Only its owner can enter the folder; the files themselves may be
read by anyone, since a container's user, who has another number, finds them outside of it.
"""

import argparse
import secrets
import sys
from pathlib import Path

ADMIN = "isic"
"""MLflow's first user."""


def contents(server: str) -> dict[str, str]:
    """The files and what is in them; `server` is PostgreSQL's HOST:PORT."""
    database = secrets.token_urlsafe(32)

    def url(name: str) -> str:
        return f"postgresql+pg8000://isic:{database}@{server}/{name}"

    auth = {
        "default_permission": "READ",
        "database_uri": url("mlflow_auth"),
        "admin_username": ADMIN,
        # A password is hashed for most of a second at each request; remember the answer for a while.
        "auth_cache_ttl_seconds": "300",
    }
    return {
        "postgres_password": database,
        "mlflow_store": url("mlflow"),
        "study_storage": url("study"),
        "mlflow_auth.ini": "\n".join(["[mlflow]", *(f"{name} = {value}" for name, value in auth.items())]),
        "mlflow_password": secrets.token_urlsafe(24),
        "mlflow_session_key": secrets.token_urlsafe(32),
    }


def main() -> None:
    """Write the files, or refuse where there are some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "secrets")
    parser.add_argument("--postgres", default="postgres:5432", metavar="HOST:PORT")
    options = parser.parse_args()
    folder: Path = options.folder
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        sys.exit(f"{folder} exists; the databases were made with its passwords, so nothing was changed")
    for name, text in contents(options.postgres).items():
        file = folder / name
        file.write_text(text + "\n", encoding="utf-8")
        file.chmod(0o444)
    print(f"secrets in {folder}; MLflow's user is {ADMIN}, the password is in {folder / 'mlflow_password'}")


if __name__ == "__main__":
    main()
