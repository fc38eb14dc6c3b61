// What the server says where it does not give what it was asked for.

export async function refusal(answer) {
  const said = await answer.json().catch(() => null);
  return typeof said?.detail === "string" ? said.detail : `the dashboard answered with status ${answer.status}`;
}
