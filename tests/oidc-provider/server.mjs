// An authorization server for the tests: oidc-provider on a loopback port. It runs in the folder that has `node_modules`.
//
//     node server.mjs http|https PORT
//
// For https, the folder of AUTHGATE_TLS has chain.pem and key.pem. The first line on standard output is the issuer. After that, each
// line on standard input is a command, and each has one line of JSON as its answer. The process ends when its standard input does.
//
//     publish KID ALGORITHM   a new key is in the set
//     sign KID                the key signs all further tokens of its algorithm
//     remove KID              the key leaves the set
//     counts                  the requests so far, by path
//     stop                    closes the port and all connections; tokens and keys stay
//     start                   listens on the same port again

import { Console } from 'node:console';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const answer = (line) => process.stdout.write(`${line}\n`);
globalThis.console = new Console(process.stderr); // standard output is for the test alone

const { default: Provider } = createRequire(join(process.cwd(), 'package.json'))('oidc-provider');

const AUDIENCE = 'https://api.example.com';
const GENERATED = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};

const keys = new Map(); // key id to private JWK, in the order of the set
const signing = new Map(); // algorithm to key id
const counts = {};
let issuer;
let handle; // the handler of the provider that has the current keys

function generate(kid, algorithm) {
  const { privateKey } = generateKeyPairSync(...GENERATED[algorithm]);
  keys.set(kid, { ...privateKey.export({ format: 'jwk' }), kid, alg: algorithm, use: 'sig' });
}

function client(id, more) {
  return {
    client_id: id,
    client_secret: `canary-${id}-secret`,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    scope: 'read write',
    id_token_signed_response_alg: 'RS256',
    ...more,
  };
}

// The resource chooses the kind of token: the last segment of its path is an algorithm, or `opaque`.
function resourceServer(ctx, resource) {
  const kind = resource.slice(AUDIENCE.length + 1);
  const server = { audience: AUDIENCE, scope: 'read write', accessTokenTTL: 600 };
  if (kind === 'opaque') return { ...server, accessTokenFormat: 'opaque' };
  return { ...server, accessTokenFormat: 'jwt', jwt: { sign: { alg: kind, kid: signing.get(kind) } } };
}

// A deployed provider is replaced by one that has the new keys. Tokens are kept: its storage belongs to the module.
function replaceProvider() {
  const provider = new Provider(issuer, {
    jwks: { keys: [...keys.values()] },
    clients: [
      client('shop'),
      client('gateway'),
      client('bound', { tls_client_certificate_bound_access_tokens: true }),
    ],
    scopes: ['read', 'write'],
    ttl: { ClientCredentials: 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (ctx, asking) => asking.clientId === 'gateway' },
      revocation: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
      dPoP: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        getCertificate: (ctx) => ctx.socket.getPeerX509Certificate?.(),
      },
    },
  });
  handle = provider.callback();
}

function serve(request, response) {
  const path = request.url.split('?')[0];
  counts[path] = (counts[path] ?? 0) + 1;
  response.setHeader('Server', 'oidc-provider');
  handle(request, response);
}

const [scheme, port] = process.argv.slice(2);
let server;
if (scheme === 'https') {
  const file = (name) => readFileSync(join(process.env.AUTHGATE_TLS, name));
  // A certificate of the client is wanted for its hash alone.
  const tls = { cert: file('chain.pem'), key: file('key.pem'), requestCert: true, rejectUnauthorized: false };
  server = https.createServer(tls, serve);
} else {
  server = http.createServer(serve);
}

async function listen() {
  server.listen(Number(port), '127.0.0.1');
  await once(server, 'listening');
}

const commands = {
  publish(kid, algorithm) {
    generate(kid, algorithm);
    replaceProvider();
  },
  sign(kid) {
    signing.set(keys.get(kid).alg, kid);
  },
  remove(kid) {
    keys.delete(kid);
    replaceProvider();
  },
  counts: () => counts,
  async stop() {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  },
  start: listen,
};

await listen();
issuer = scheme === 'https' ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
for (const algorithm of Object.keys(GENERATED)) {
  generate(`${algorithm}-1`, algorithm);
  signing.set(algorithm, `${algorithm}-1`);
}
replaceProvider();
answer(issuer);

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...words] = line.split(' ');
  answer(JSON.stringify((await commands[name](...words)) ?? {}));
}
process.exit(0);
