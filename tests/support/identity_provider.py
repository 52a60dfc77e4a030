"""An identity provider: it signs real tokens, and does wrong what it is told to do wrong.

Rule of this file: ``IdentityProvider`` is the whole of it without sockets; as a program it is a process that
answers over TLS, and hears at ``/manner`` what it shall do from now on. Nothing of the project is in it.

::

    idp = IdentityProvider("https://idp.example", "https://gate.example/oidc/back")
    with provider_process(tmp_path, redirect) as idp:    # idp.issuer, idp.authority, idp.tell(silent=True)

Source: OpenID Connect Core 1.0, Discovery 1.0; RFC 7636, RFC 9207.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.support.throwaway_tls import Issuer

__all__ = ["CLIENT", "SECRET", "IdentityProvider", "Running", "key_of", "provider_process"]

CLIENT, SECRET = "revtunnel", "s3cret of the client/+="
ANA = {"sub": "248289761001", "email": "Ana@Example.com", "email_verified": True, "groups": ["plant-3"]}


@cache
def key_of(number: int, kind: str) -> Any:
    """A private key, the same for each number while the process lives."""
    if kind == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


class IdentityProvider:
    """All of it. ``manner`` says what is not as it should be; ``asked`` counts by path.

    ``claims``: others than usual, None takes one away. ``discovery``: likewise. ``alg``: ES256, RS256, none,
    HS256. ``key``: the number of the one that signs; ``shown``: those that the key set has. ``answer_iss``:
    in the answer to the browser. ``userinfo``: what is said there. ``error``: instead of a code. ``status``,
    ``large``, ``silent``, ``garbage``: by path.
    """

    def __init__(self, issuer: str, redirect: str, **manner: Any) -> None:
        self.issuer = issuer
        self.redirect = redirect
        self.manner = manner
        self.asked: dict[str, int] = {}
        self.now = time.time
        self._codes: dict[str, dict[str, str]] = {}

    def answer(self, method: str, path: str, said: dict[str, str], authorization: str = "") -> Any:
        """Status, headers, body of one request; None: there is no answer."""
        self.asked[path] = self.asked.get(path, 0) + 1
        if path in self.manner.get("silent", ()):
            return None
        if path in self.manner.get("status", {}):
            return self.manner["status"][path], {"Location": f"{self.issuer}/elsewhere"}, b"no"
        if path in self.manner.get("large", ()):
            return 200, {}, b'{"issuer": "' + b"x" * 10_000_000 + b'"}'
        if path in self.manner.get("garbage", ()):
            return 200, {}, b'["<html>"'
        if path == "/authorize":
            return self._authorize(said)
        if path == "/userinfo":
            good = authorization == "Bearer access"
            row = _but({"sub": ANA["sub"]}, self.manner.get("userinfo", {}))
            return (200, {}, json.dumps(row).encode()) if good else (401, {}, b"")
        row = {"/.well-known/openid-configuration": self.about, "/keys": self.keys}.get(path)
        if row is not None:
            return 200, {"Content-Type": "application/json"}, json.dumps(row()).encode()
        return self._token(said, authorization) if (method, path) == ("POST", "/token") else (404, {}, b"")

    def about(self) -> dict[str, Any]:
        """The discovery document."""
        row = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return _but(row, self.manner.get("discovery", {}))

    def keys(self) -> dict[str, Any]:
        """The key set, with keys that are none for us."""
        found: list[dict[str, Any]] = [{"kty": "oct", "k": "AAAA", "kid": "0"}, {"kty": "EC", "crv": "P-256"}]
        for number in self.manner.get("shown", [1]):
            rsa_row = RSAAlgorithm.to_jwk(key_of(number, "RS256").public_key(), as_dict=True)
            ec_row = ECAlgorithm.to_jwk(key_of(number, "ES256").public_key(), as_dict=True)
            found += [{**rsa_row, "kid": f"r{number}", "use": "sig"}, {**ec_row, "kid": f"e{number}"}]
        return {"keys": found}

    def _authorize(self, said: dict[str, str]) -> Any:
        wanted = {"client_id": CLIENT, "redirect_uri": self.redirect, "response_type": "code"}
        if any(said.get(name) != value for name, value in wanted.items()):
            return 400, {}, b"unknown client or redirect URI"
        assert said["code_challenge_method"] == "S256" and "openid" in said["scope"].split()
        answer = {"state": said["state"], "iss": self.manner.get("answer_iss", self.issuer)}
        if "error" in self.manner:
            answer["error"] = self.manner["error"]
        else:
            answer["code"] = secrets.token_urlsafe(16)
            self._codes[answer["code"]] = said
        answer = {name: value for name, value in answer.items() if value is not None}
        return 303, {"Location": f"{self.redirect}?{urlencode(answer)}"}, b""

    def _token(self, said: dict[str, str], authorization: str) -> Any:
        begun = self._codes.pop(said.get("code", ""), None)
        pair = base64.b64decode(authorization.partition(" ")[2]).decode()
        hashed = hashlib.sha256(said.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        good = begun is not None and begun["code_challenge"] == challenge
        if (
            not good
            or said.get("redirect_uri") != self.redirect
            or said["grant_type"] != "authorization_code"
        ):
            return 400, {}, b'{"error": "invalid_grant"}'
        if pair != urlencode({CLIENT: SECRET}).replace("=", ":", 1):
            return 401, {}, b'{"error": "invalid_client"}'
        assert begun is not None
        token = self.token(begun["nonce"])
        row = {"access_token": self.manner.get("access", "access"), "token_type": "Bearer", "id_token": token}
        return 200, {"Content-Type": "application/json"}, json.dumps(row).encode()

    def token(self, nonce: str) -> str:
        """An ID token, with what the manner has of it."""
        now = int(self.now())
        row = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce, **ANA}
        claims = _but(row, self.manner.get("claims", {}))
        alg, number = self.manner.get("alg", "ES256"), self.manner.get("key", 1)
        if alg == "none":
            return jwt.encode(claims, "", "none", {"kid": "e1"})
        if alg == "HS256":  # signed with what everybody knows: the public key
            public = (
                key_of(1, "RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            )
            said = jwt.encode(claims, "", "none").encode()
            head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"r1"}').rstrip(b"=")
            said = head + b"." + said.split(b".")[1]
            sign = hmac.new(public, said, "sha256").digest()
            return (said + b"." + base64.urlsafe_b64encode(sign).rstrip(b"=")).decode()
        kid = self.manner.get("kid", f"{'r' if alg == 'RS256' else 'e'}{number}")
        return jwt.encode(claims, key_of(number, alg), alg, {"kid": kid} if kid else None)


def _but(row: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**row, **others}.items() if value is not None}


class Running(NamedTuple):
    """One that is a process."""

    issuer: str
    authority: str  # file with the certificate of who signed its own

    def tell(self, **manner: Any) -> dict[str, int]:
        """What it does from now on; how often it was asked so far, by path."""
        context = ssl.create_default_context(cafile=self.authority)
        body = json.dumps(manner).encode()
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(f"{self.issuer}/manner", body, timeout=20) as answer:
            found: dict[str, int] = json.loads(answer.read())
            return found


@contextlib.contextmanager
def provider_process(directory: Path, redirect: str, **manner: Any) -> Iterator[Running]:
    """A provider of its own at localhost, over TLS."""
    authority = Issuer(directory, "provider authority")
    issued = authority.server("localhost", file="provider")
    command = [sys.executable, "-m", "tests.support.identity_provider"]
    command += [issued.certificate_file, issued.key_file, redirect, json.dumps(manner)]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
    try:
        assert process.stdout is not None
        yield Running(process.stdout.readline().decode().strip(), authority.file)
    finally:
        process.kill()
        process.communicate()


def _serve(certificate: str, key: str, redirect: str, manner: str) -> None:
    from twisted.internet import reactor as installed
    from twisted.internet import ssl as tls
    from twisted.web import resource, server

    reactor: Any = installed

    class Everything(resource.Resource):
        isLeaf = True

        def render(self, request: Any) -> Any:
            path, body = request.path.decode(), request.content.read()
            if path == "/manner":
                idp.manner = json.loads(body)
                return json.dumps(idp.asked).encode()
            raw = body if request.method == b"POST" else request.uri.partition(b"?")[2]
            said = dict(parse_qsl(raw.decode()))
            found = idp.answer(request.method.decode(), path, said, request.getHeader("authorization") or "")
            if found is None:
                return server.NOT_DONE_YET
            status, headers, answer = found
            request.setResponseCode(status)
            for name, value in headers.items():
                request.setHeader(name, value)
            return answer

    context = tls.DefaultOpenSSLContextFactory(key, certificate)
    port = reactor.listenSSL(0, server.Site(Everything()), context, interface="127.0.0.1")
    idp = IdentityProvider(f"https://localhost:{port.getHost().port}", redirect, **json.loads(manner))
    print(idp.issuer, flush=True)
    reactor.run()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
