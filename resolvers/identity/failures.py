"""What can be refused about identity. None of these tells more than the caller may know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from market.errors import BadInput, BargraphError


class Unauthenticated(BargraphError):
    """Nobody is signed in, or what proved it does not count any more. It never says why."""

    code: ClassVar[str] = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("Sign in, or sign in again.")


class LoginFailed(BargraphError):
    """Unknown name, wrong password, disabled account: the caller is told none of them."""

    code: ClassVar[str] = "LOGIN_FAILED"

    def __init__(self) -> None:
        super().__init__("Name or password are wrong.")


class NoSession(BargraphError):
    """Whoever signs out came by an API token, which belongs to no session."""

    code: ClassVar[str] = "NO_SESSION"

    def __init__(self) -> None:
        super().__init__("An API token has no session to end. Revoke it instead.")


class CodeNeeded(BargraphError):
    """The password is right, and the account wants a one-time code besides."""

    code: ClassVar[str] = "CODE_NEEDED"

    def __init__(self) -> None:
        super().__init__("Give the code of your authenticator too.")


class WrongCode(BargraphError):
    """A one-time code that is wrong, too old, or was used before."""

    code: ClassVar[str] = "WRONG_CODE"

    def __init__(self) -> None:
        super().__init__("The code is wrong, too old, or was used before.")


class TooManyCodes(BargraphError):
    """So many wrong codes came lately that no other is looked at; *retry_after* is in seconds."""

    code: ClassVar[str] = "TOO_MANY_CODES"

    def __init__(self, *, retry_after: float) -> None:
        super().__init__("Too many wrong codes. Wait, or give a recovery code.")
        self.retry_after = retry_after


class EmailNotVerified(BargraphError):
    """The password is right; the address waits to be verified."""

    code: ClassVar[str] = "EMAIL_NOT_VERIFIED"

    def __init__(self) -> None:
        super().__init__("Follow the link in the mail that was sent to you first.")


class WrongPassword(BargraphError):
    """Somebody signed in did not repeat their password rightly."""

    code: ClassVar[str] = "WRONG_PASSWORD"

    def __init__(self) -> None:
        super().__init__("The password is wrong.")


class WeakPassword(BadInput):
    """A password that is too short, too long, or is the name of its user."""

    code: ClassVar[str] = "WEAK_PASSWORD"


class TooBusy(BargraphError):
    """More passwords wait to be checked than the server can check soon."""

    code: ClassVar[str] = "TOO_BUSY"

    def __init__(self, *, retry_after: float) -> None:
        super().__init__("Too many people sign in at the moment. Try again soon.")
        self.retry_after = retry_after


class RegistrationClosed(BargraphError):
    """Nobody may register by themselves."""

    code: ClassVar[str] = "REGISTRATION_CLOSED"

    def __init__(self) -> None:
        super().__init__("This server takes no registrations.")


class InvitationInvalid(BargraphError):
    """An invitation is needed, and what was given is none, is used, too old, or for another."""

    code: ClassVar[str] = "INVITATION_INVALID"

    def __init__(self) -> None:
        super().__init__("An invitation is needed that is not used, not too old, and yours.")


class TokenInvalid(BargraphError):
    """A token out of a mail that is unknown, too old, or was used before."""

    code: ClassVar[str] = "TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("The link is too old or was used before. Ask for another one.")


class TooSoon(BargraphError):
    """A mail of the same kind went out a moment ago; *retry_after* is in seconds."""

    code: ClassVar[str] = "TOO_SOON"

    def __init__(self, *, retry_after: float) -> None:
        super().__init__("A mail is on its way already. Wait a minute before the next one.")
        self.retry_after = retry_after


class SecondFactorOn(BargraphError):
    """One-time codes are on already; they are turned off before they can be set up anew."""

    code: ClassVar[str] = "SECOND_FACTOR_ON"

    def __init__(self) -> None:
        super().__init__("One-time codes are on already.")


class SecondFactorOff(BargraphError):
    """There are no one-time codes to turn off."""

    code: ClassVar[str] = "SECOND_FACTOR_OFF"

    def __init__(self) -> None:
        super().__init__("One-time codes are not on.")


class LastAdmin(BargraphError):
    """Without this user nobody could look after the server."""

    code: ClassVar[str] = "LAST_ADMIN"

    def __init__(self) -> None:
        super().__init__("This is the only admin; make another one first.")


class CredentialInUse(BargraphError):
    """A credential that is not deleted while *users* need it: open orders, running bots."""

    code: ClassVar[str] = "CREDENTIAL_IN_USE"

    def __init__(self, users: Iterable[str]) -> None:
        self.users = tuple(users)
        super().__init__(f"The credential is in use by {', '.join(self.users[:10])}.")


class CredentialRefused(BargraphError):
    """The venue did not take the keys. *reason* is our own word for why, never the venue's."""

    code: ClassVar[str] = "CREDENTIAL_REFUSED"

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service} did not take the credential: {reason}.")
        self.service = service
        self.reason = reason
