"""What is wrong with certificates when a store cannot be spoken to by TLS."""

import ssl

from urllib3.util.ssl_match_hostname import CertificateError


def blame_tls(says: str, error: BaseException) -> str:
    """Add to what is said of a store that TLS is why, if it is; names neither hosts nor secrets."""
    trouble = _find_trouble(error)
    return says if trouble is None else f"{says}: {trouble}"


def _find_trouble(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # "Hostname mismatch, certificate is not valid for 's3.internal'."
            return f"its certificate is not trusted ({cause.verify_message.partition(',')[0]})"
        if isinstance(cause, CertificateError):
            return "its certificate is not trusted (it is for another name)"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'no reason given'})"
        cause = cause.__cause__ or cause.__context__
    return None
