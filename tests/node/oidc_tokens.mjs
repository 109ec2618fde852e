// An authorization server on loopback: npm's certified oidc-provider, whose access tokens are for a resource, opaque or JWTs, and which says what they are.
// Argument: {port, key, format, scope, clients, life}, where key is the JWK that it signs with and clients are as OpenID Connect registers them. Anybody may log in. Runs until its standard input ends.
import Provider from "oidc-provider";

const asked = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${asked.port}`;

const provider = new Provider(issuer, {
  clients: asked.clients,
  jwks: { keys: [asked.key] },
  scopes: ["openid", "offline_access", ...asked.scope.split(" ")],
  cookies: { keys: ["only for tests"] },
  issueRefreshToken: async () => true,
  ttl: { AccessToken: asked.life ?? 3600, ClientCredentials: asked.life ?? 3600 },
  features: {
    introspection: { enabled: true },
    jwtIntrospection: { enabled: true },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_context, resource) => ({
        scope: asked.scope,
        audience: resource,
        accessTokenFormat: asked.format,
        jwt: { sign: { alg: asked.key.alg } },
      }),
    },
  },
  pkce: { required: () => true },
  findAccount: (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
});
provider.listen(asked.port, "127.0.0.1", () => console.log("ready"));
process.stdin.on("end", () => process.exit(0)).resume();
