"""The mails of identity. Tokens stand behind a `#`, which browsers send to no server."""

from __future__ import annotations

from pydantic import SecretStr

from resolvers.identity.principal import Mail


def verification(to: str, public_url: str, token: SecretStr) -> Mail:
    return Mail(
        to,
        "Verify your address",
        SecretStr(
            f"Follow this link to verify your address at Bargraph:\n\n"
            f"{public_url}/verify#token={token.get_secret_value()}\n\n"
            f"If you did not ask for it, do nothing.\n"
        ),
    )


def registered_already(to: str, public_url: str) -> Mail:
    return Mail(
        to,
        "You have an account already",
        SecretStr(
            f"Somebody tried to register with your address at Bargraph, where you have an account\n"
            f"already. If it was you and you forgot the password, set a new one:\n\n"
            f"{public_url}/forgotten\n\n"
            f"If it was not you, do nothing.\n"
        ),
    )


def password_reset(to: str, public_url: str, token: SecretStr) -> Mail:
    return Mail(
        to,
        "Set a new password",
        SecretStr(
            f"Follow this link to set a new password at Bargraph:\n\n"
            f"{public_url}/reset-password#token={token.get_secret_value()}\n\n"
            f"It works once, for an hour. If you did not ask for it, do nothing.\n"
        ),
    )


def password_changed(to: str, public_url: str) -> Mail:
    return Mail(
        to,
        "Your password was changed",
        SecretStr(
            f"The password of your account at Bargraph was changed just now.\n"
            f"If it was not you, set a new one at once:\n\n{public_url}/forgotten\n"
        ),
    )


def email_changing(to: str, public_url: str) -> Mail:
    return Mail(
        to,
        "Your account is to have another address",
        SecretStr(
            f"Somebody who knows your password asked Bargraph to use another address for your\n"
            f"account. It will, once a link that was sent there is followed.\n\n"
            f"If it was not you, set a new password at once, which stops it:\n\n"
            f"{public_url}/forgotten\n"
        ),
    )


def email_changed(to: str) -> Mail:
    return Mail(
        to,
        "Your account has another address",
        SecretStr(
            "Mail about your account at Bargraph goes to another address from now on.\n"
            "If it was not you, tell whoever runs the server.\n"
        ),
    )


def account_deleted(to: str) -> Mail:
    return Mail(
        to,
        "Your account was deleted",
        SecretStr(
            "Your account at Bargraph, and all that was kept in it, was deleted just now.\n"
            "If it was not you, tell whoever runs the server.\n"
        ),
    )


def codes_guessed(to: str, public_url: str) -> Mail:
    return Mail(
        to,
        "Somebody guesses at your codes",
        SecretStr(
            "Somebody who knows your password tried to sign in to your account at Bargraph with\n"
            "several wrong one-time codes. For a while only recovery codes count.\n\n"
            f"If it was not you, set a new password at once:\n\n{public_url}/forgotten\n"
        ),
    )


def codes_turned_on(to: str, public_url: str) -> Mail:
    return Mail(
        to,
        "One-time codes are on",
        SecretStr(
            "Whoever signs in to your account at Bargraph needs a one-time code from now on.\n\n"
            "If it was not you who turned that on, set a new password at once, and let whoever\n"
            f"runs the server turn it off:\n\n{public_url}/forgotten\n"
        ),
    )


def codes_turned_off(to: str, public_url: str) -> Mail:
    return Mail(
        to,
        "One-time codes are off",
        SecretStr(
            "Your account at Bargraph asks for no one-time codes any more: whoever has the\n"
            "password can sign in.\n\n"
            "If you did not want that, set a new password at once, and turn them on again:\n\n"
            f"{public_url}/forgotten\n"
        ),
    )


def api_token_created(to: str, name: str) -> Mail:
    return Mail(
        to,
        "Your account has another API token",
        SecretStr(
            f"An API token was made for your account at Bargraph just now. Its name is\n{name}\n\n"
            "If it was not you, revoke it, and set a new password.\n"
        ),
    )


def invitation(to: str, public_url: str, token: SecretStr) -> Mail:
    return Mail(
        to,
        "You are invited",
        SecretStr(
            f"You are invited to Bargraph. Make your account here:\n\n"
            f"{public_url}/register#invitation={token.get_secret_value()}\n"
        ),
    )
