// A company's OpenID provider that exchanges tokens (RFC 8693): npm's certified oidc-provider, with the grant as a custom one.
// People log in at it by a public client and get access tokens for `gateway`; `client`, the gateway, exchanges these for ones for `api`.
// Argument: {port, gateway, api, client, secret, key, publicKey, clientKey}. Prints ready, then a JSON line for each exchange.
import { createLocalJWKSet, jwtVerify } from "jose";
import Provider, { errors } from "oidc-provider";

const asked = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${asked.port}`;
const exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
const accessToken = "urn:ietf:params:oauth:token-type:access_token";
const scopes = { [asked.gateway]: "notes.read", [asked.api]: "orders.read" };

function serverOf(resource) {
  if (!scopes[resource]) throw new errors.InvalidTarget();
  return { scope: scopes[resource], audience: resource, accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } } };
}

const findAccount = async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) });

const gateway = asked.clientKey
  ? { token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [asked.clientKey] } }
  : { client_secret: asked.secret };
const provider = new Provider(issuer, {
  clients: [
    { client_id: asked.client, grant_types: [exchange], redirect_uris: [], response_types: [], ...gateway },
    {
      client_id: "desktop", token_endpoint_auth_method: "none", application_type: "native",
      redirect_uris: ["http://127.0.0.1/back"], grant_types: ["authorization_code"], response_types: ["code"],
    },
  ],
  jwks: { keys: [asked.key] },
  cookies: { keys: ["only for tests"] },
  features: {
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: async (_context, resource) => serverOf(resource),
      useGrantedResource: async () => true,
    },
  },
  scopes: ["openid", "notes.read", "orders.read"],
  pkce: { required: () => true },
  extraTokenClaims: (context) =>
    context.oidc.client.clientId === asked.client ? { act: { sub: asked.client } } : undefined,
  findAccount,
});

const own = createLocalJWKSet({ keys: [asked.publicKey] });
provider.registerGrantType(
  exchange,
  async (context) => {
    const { params, client } = context.oidc;
    if (params.subject_token_type !== accessToken || !params.subject_token) throw new errors.InvalidRequest("no subject");
    if ((params.requested_token_type ?? accessToken) !== accessToken) throw new errors.InvalidRequest("no such type");
    let subject;
    try {
      const checks = { issuer, audience: asked.gateway, typ: "at+jwt", algorithms: ["RS256"] };
      subject = (await jwtVerify(params.subject_token, own, checks)).payload;
    } catch {
      throw new errors.InvalidRequest("the subject token is not good");
    }
    const account = await findAccount(context, subject.sub);
    const info = serverOf(params.resource);
    const wanted = new Set((params.scope ?? info.scope).split(" "));
    const granted = info.scope.split(" ").filter((each) => wanted.has(each)).join(" ");
    const grant = new provider.Grant({ accountId: account.accountId, clientId: client.clientId });
    grant.addResourceScope(params.resource, granted);
    const token = new provider.AccessToken({
      accountId: account.accountId, client, grantId: await grant.save(), gty: exchange, scope: granted,
    });
    token.resourceServer = new provider.ResourceServer(params.resource, info);
    context.oidc.entity("AccessToken", token);
    const value = await token.save();
    console.log(JSON.stringify({ from: subject.sub, through: subject.client_id, by: client.clientId }));
    context.body = {
      access_token: value, issued_token_type: accessToken, token_type: token.tokenType, expires_in: token.expiration,
      scope: granted, refresh_token: "nobody should keep this",
    };
  },
  ["subject_token", "subject_token_type", "requested_token_type", "resource", "audience", "scope"],
);
provider.listen(asked.port, "127.0.0.1", () => console.log("ready"));
process.stdin.on("end", () => process.exit(0)).resume();
