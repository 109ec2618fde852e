// One person's MCP client, from npm: discovery, registration, PKCE and the login page, then the calls asked for.
//
//     node oauth_client.mjs '{"url": "http://127.0.0.1:8100/mcp", "subject": "u-1001", "calls": [["reviews_list", {}]]}'
//
// Prints one JSON object: what was offered, what came back, and what the flow did. No token is printed.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const REDIRECT = "http://127.0.0.1:8113/callback"; // nobody listens: the hand reads the address it is sent to

class Provider {
  constructor(hand) {
    this.hand = hand;
    this.wanted = crypto.randomUUID();
  }
  get redirectUrl() {
    return REDIRECT;
  }
  get clientMetadata() {
    return {
      client_name: "onbehalf test (npm)",
      redirect_uris: [REDIRECT],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    };
  }
  state() {
    return this.wanted;
  }
  clientInformation() {
    return this.client;
  }
  saveClientInformation(client) {
    this.client = client;
  }
  tokens() {
    return this.kept;
  }
  saveTokens(tokens) {
    this.kept = tokens;
  }
  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }
  codeVerifier() {
    return this.verifier;
  }
  async redirectToAuthorization(url) {
    this.asked = Object.fromEntries(url.searchParams);
    this.answer = await this.hand(url);
  }
}

// What a person does in a browser: open the page, keep its cookie, pick oneself, press the button.
function hand(subject) {
  return async (url) => {
    const page = await fetch(url, { redirect: "manual" });
    const text = await page.text();
    const login = /name="login" value="([^"]+)"/.exec(text)?.[1];
    if (!login) throw new Error(`the issuer showed no login page (status ${page.status})`);
    const cookie = page.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
    const done = await fetch(new URL("authorize", url), {
      method: "POST",
      redirect: "manual",
      headers: { cookie, origin: url.origin },
      body: new URLSearchParams({ login, subject }),
    });
    const back = new URL(done.headers.get("location") ?? "about:blank");
    if (`${back.origin}${back.pathname}` !== REDIRECT) throw new Error(`sent to ${back.href} (status ${done.status})`);
    return Object.fromEntries(back.searchParams);
  };
}

async function connected(url, provider) {
  const client = new Client({ name: "npm-client", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  try {
    await client.connect(transport);
    throw new Error("the gateway let a client in without a token");
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
  }
  if (provider.answer.state !== provider.wanted) throw new Error("the state came back changed");
  await transport.finishAuth(provider.answer.code);
  const again = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  const logged = new Client({ name: "npm-client", version: "1.0.0" });
  await logged.connect(again);
  return { client: logged, transport: again };
}

async function called(client, [name, args]) {
  try {
    const result = await client.callTool({ name, arguments: args });
    return { error: Boolean(result.isError), content: result.content, structured: result.structuredContent ?? null, meta: result._meta ?? {} };
  } catch (error) {
    return { error: true, code: error.code ?? null, message: error.message, data: error.data ?? null };
  }
}

const { url, subject, calls } = JSON.parse(process.argv[2]);
const provider = new Provider(hand(subject));
const { client, transport } = await connected(url, provider);
const { tools } = await client.listTools();
const results = [];
for (const call of calls) results.push(await called(client, call));
const told = {
  protocol: transport.protocolVersion,
  registered: provider.client.client_id,
  resource: provider.asked.resource,
  challenge_method: provider.asked.code_challenge_method,
  issuer: provider.answer.iss,
  tools: tools.map((tool) => tool.name).sort(),
  results,
};
await transport.terminateSession();
await client.close();
console.log(JSON.stringify(told));
