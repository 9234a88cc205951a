"""Runs aiosmtpd on a free port of 127.0.0.1 until stdin closes. Arguments: starttls|tls CERTIFICATE KEY USER PASSWORD.

Says `listening PORT`, then each mail that it takes as one line of JSON.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

mode, certificate, key, user, password = sys.argv[1:]


class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode(),
            "encrypted": session.ssl is not None or mode == "tls",
            "authenticated": session.authenticated,
        }
        print(json.dumps(mail), flush=True)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    fits = data.login == user.encode() and data.password == password.encode()
    return AuthResult(success=fits, handled=True)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if mode == "starttls":
        options, wrapped = {"tls_context": context, "require_starttls": True}, None
    else:
        # With TLS from the first byte aiosmtpd does not know that it is there.
        options, wrapped = {"auth_require_tls": False}, context

    def protocol():
        return SMTP(Handler(), auth_required=True, authenticator=authenticate, **options)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=wrapped)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
