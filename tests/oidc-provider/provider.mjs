// The certified OpenID provider (npm oidc-provider) for tests, on a free port of loopback. Reads one JSON document, a
// line of standard input, and says where it listens in a line of JSON; ends with standard input. Every further line is
// {login: {claims}}, which that account has from then on, and is answered by a line.
//   {"clients": [metadata], "accounts": {login: {claims}}, "algorithms": ["RS256"]}
// Sign-in and consent are the provider's own development forms. An account's `forge` is merged into the claims of its
// ID tokens, its `forge_access` into those of its access tokens, signed by the same key: what an honest provider would
// never say. `alg` among them signs with another kind of key.
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
  const { forge, forge_access, ...claims } = accounts[login] ?? {};
  return claims;
};
const provider = new Provider(issuer, {
  clients,
  jwks: { keys },
  cookies: { keys: ['no secret: a test'] },
  // Groups stand in the ID token itself, as with the providers that are documented.
  conformIdTokenClaims: false,
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['groups', 'hd', 'oid', 'tid', 'tenant_id'] },
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

const resigned = async (token, { alg = algorithms[0], ...claims }, header) => {
  const key = keys.find((one) => one.alg === alg) ?? makeKey(alg);
  const said = { ...decodeJwt(token), ...claims };
  return new SignJWT(said).setProtectedHeader({ alg, kid: key.kid, ...header }).sign(await importJWK(key, alg));
};
provider.use(async (ctx, next) => {
  await next();
  if (!ctx.body?.access_token) return;
  const { forge, forge_access: access } = accounts[decodeJwt(ctx.body.access_token).sub] ?? {};
  if (forge && ctx.body.id_token) ctx.body.id_token = await resigned(ctx.body.id_token, forge);
  if (access) ctx.body.access_token = await resigned(ctx.body.access_token, access, { typ: 'at+jwt' });
});

server.on('request', provider.callback());
console.log(JSON.stringify({ issuer }));
lines.on('line', (line) => {
  Object.assign(accounts, JSON.parse(line));
  console.log('{}');
});
lines.on('close', () => process.exit(0));
