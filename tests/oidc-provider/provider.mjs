// The certified OpenID provider (npm oidc-provider) for tests, on a free port of loopback. Reads one JSON document, a
// line of standard input, and says where it listens in a line of JSON; ends with standard input. Every further line is
// {login: {claims}}, which that account has from then on, and is answered by a line.
//   {"clients": [metadata], "accounts": {login: {claims}}, "algorithms": ["RS256"]}
// Sign-in and consent are the provider's own development forms. An account's `forge` is merged into the claims of its
// ID tokens, signed by the same key: what an honest provider would never say. `forge.alg` signs with another kind of key.
// Knows nothing of what is tested.

import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { SignJWT, decodeJwt, importJWK } from 'jose';
import { Provider } from 'oidc-provider';

const lines = createInterface({ input: process.stdin });
const [first] = await once(lines, 'line');
const { clients, accounts, algorithms = ['RS256'] } = JSON.parse(first);

const makeKey = (alg) => {
  const { privateKey } = alg.startsWith('ES')
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `key-${alg}` };
};
const keys = algorithms.map(makeKey);

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const told = (login) => {
  const { forge, ...claims } = accounts[login] ?? {};
  return claims;
};
const profile = new Set(Object.keys(accounts).flatMap((login) => Object.keys(told(login))));
for (const name of ['sub', 'email', 'email_verified']) profile.delete(name);

const provider = new Provider(issuer, {
  clients,
  jwks: { keys },
  cookies: { keys: ['no secret: a test'] },
  // Groups stand in the ID token itself, as with the providers that are documented.
  conformIdTokenClaims: false,
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: [...profile] },
  findAccount: (_ctx, login) => ({ accountId: login, claims: () => ({ sub: login, ...told(login) }) }),
  extraTokenClaims: (_ctx, token) => told(token.accountId),
  features: {
    devInteractions: { enabled: true },
    // Access tokens are JWTs (RFC 9068) for one API.
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'https://api.test',
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'openid', audience: 'https://api.test', accessTokenFormat: 'jwt', accessTokenTTL: 600,
      }),
    },
  },
  ttl: { AccessToken: 600, AuthorizationCode: 60, IdToken: 600, Interaction: 600, Grant: 600, Session: 600 },
});

provider.use(async (ctx, next) => {
  await next();
  const forge = ctx.body?.id_token && accounts[decodeJwt(ctx.body.id_token).sub]?.forge;
  if (!forge) return;
  const { alg = algorithms[0], ...claims } = forge;
  const key = keys.find((one) => one.alg === alg) ?? makeKey(alg);
  const said = { ...decodeJwt(ctx.body.id_token), ...claims };
  ctx.body.id_token = await new SignJWT(said).setProtectedHeader({ alg, kid: key.kid }).sign(await importJWK(key, alg));
});

server.on('request', provider.callback());
console.log(JSON.stringify({ issuer }));
lines.on('line', (line) => {
  Object.assign(accounts, JSON.parse(line));
  console.log('{}');
});
lines.on('close', () => process.exit(0));
