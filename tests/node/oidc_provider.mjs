// A company's OpenID provider on loopback: npm's certified oidc-provider with its own login pages, anybody may log in.
// Argument: {port, client, secret, redirects, key, refresh, life}, where key is the JWK that it signs with. Runs until its standard input ends. An account's claims follow its name.
import Provider from "oidc-provider";

const asked = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${asked.port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: asked.client,
      client_secret: asked.secret,
      redirect_uris: asked.redirects,
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
    },
  ],
  jwks: { keys: [asked.key] },
  cookies: { keys: ["only for tests"] },
  conformIdTokenClaims: false,
  issueRefreshToken: async () => asked.refresh === true,
  rotateRefreshToken: true,
  ttl: { AccessToken: asked.life ?? 3600 },
  features: { revocation: { enabled: true } },
  claims: { openid: ["sub", "groups", "org"], email: ["email"], profile: ["name"], auth_time: null, acr: null },
  pkce: { required: () => true },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: async () => ({ sub: id, email: `${id}@acme.example`, name: id, groups: ["staff"], org: "acme" }),
  }),
});
provider.listen(asked.port, "127.0.0.1", () => console.log("ready"));
process.stdin.on("end", () => process.exit(0)).resume();
