// The same line as clients/flow.py, in JavaScript; prints the same JSON object.
import fs from "node:fs";
import OpenAI from "openai";
import { VERSION } from "openai/version";

const BASE = "gpt-3.5-turbo";
const QUESTION = [{ role: "user", content: "ask 001" }];
const SECONDS = 180;
const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const pause = () => new Promise((wake) => setTimeout(wake, 200));

async function finished(id) {
  const deadline = Date.now() + SECONDS * 1000;
  for (;;) {
    const job = await client.fineTuning.jobs.retrieve(id);
    if (["succeeded", "failed", "cancelled"].includes(job.status)) return job;
    if (Date.now() > deadline) throw new Error(`${id} is still ${job.status}`);
    await pause();
  }
}

async function all(pages) {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
}

async function chat(model) {
  const asked = { model, messages: QUESTION, temperature: 0, max_tokens: 8 };
  const whole = await client.chat.completions.create(asked);
  const chunks = await all(
    await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  return {
    whole: [whole.choices[0].message.content, whole.choices[0].finish_reason],
    tokens: [whole.usage.total_tokens],
    streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    streamed_tokens: [chunks.at(-1).usage.total_tokens],
  };
}

async function errors(jobId) {
  const stranger = new OpenAI({ apiKey: "sk-nobody", maxRetries: 0 });
  const calls = {
    key: () => stranger.models.list(),
    file: () => client.files.retrieve("file-x"),
    job: () => client.fineTuning.jobs.retrieve("ftjob-x"),
    model: () => client.chat.completions.create({ model: "nobody", messages: QUESTION }),
    base: () => client.models.delete(BASE),
    value: () =>
      client.chat.completions.create({ model: BASE, messages: QUESTION, temperature: 5 }),
    ended: () => client.fineTuning.jobs.cancel(jobId),
  };
  const found = {};
  for (const [name, call] of Object.entries(calls)) {
    try {
      await call();
    } catch (error) {
      if (!(error instanceof OpenAI.APIError)) throw error;
      found[name] = [error.constructor.name, error.status, error.param, error.code];
    }
  }
  return found;
}

async function main(path) {
  let file = await client.files.create({ file: fs.createReadStream(path), purpose: "fine-tune" });
  file = await client.files.waitForProcessing(file.id, { pollInterval: 200 });
  const created = await client.fineTuning.jobs.create({
    model: BASE,
    training_file: file.id,
    suffix: "flow",
    seed: 3,
    method: {
      type: "supervised",
      supervised: {
        hyperparameters: { n_epochs: 4, batch_size: 4, learning_rate_multiplier: 1.5 },
      },
    },
  });
  const job = await finished(created.id);
  const model = job.fine_tuned_model;
  const events = await all(client.fineTuning.jobs.listEvents(job.id, { limit: 5 }));
  const listed = (await all(client.models.list())).map((one) => one.id);
  const result = await (await client.files.content(job.result_files[0])).text();
  return {
    file: [file.object, file.purpose, file.status, file.bytes],
    created: [created.object, created.status, created.seed],
    finished: [job.status, job.trained_tokens, job.result_files.length],
    events: [events.length, new Set(events.map((one) => one.id)).size, events[0].message],
    listed: listed.includes(model) && listed.includes(BASE),
    owner: (await client.models.retrieve(model)).owned_by,
    result: result.slice(0, 4),
    ...(await chat(model)),
    errors: await errors(job.id),
    deleted: (await client.files.delete(file.id)).deleted,
  };
}

console.log(JSON.stringify({ version: VERSION, found: await main(process.argv[2]) }));
