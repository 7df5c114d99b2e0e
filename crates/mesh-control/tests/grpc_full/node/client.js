// As client.py, with @grpc/grpc-js-xds: a JSON object per line in, one out.
'use strict';

const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const channels = new Map();

function client(target) {
  if (!channels.has(target)) {
    channels.set(target, new grpc.Client(target, grpc.credentials.createInsecure()));
  }
  return channels.get(target);
}

// Starts a call; `done` gets the status's name, or nothing, and the reply.
function call(target, method, metadata, seconds, done) {
  const headers = new grpc.Metadata({ waitForReady: true });
  for (const [name, value] of metadata) headers.add(name, value);
  const bytes = (buffer) => buffer;
  const options = { deadline: Date.now() + seconds * 1000 };
  const path = '/mesh.test.Echo/' + method;
  return client(target).makeUnaryRequest(
    path, bytes, bytes, Buffer.from('x'), headers, options, (error, reply) => {
      if (error) console.error(error.code, error.details);
      done(error ? grpc.status[error.code] : null, error ? null : reply.toString());
    });
}

class Tally {
  constructor() {
    this.take();
  }

  call(target, method, metadata, seconds) {
    return new Promise((resolve) => call(target, method, metadata, seconds, (error, reply) => {
      const counts = error ? this.counts.errors : this.counts.replies;
      const key = error ?? reply;
      counts[key] = (counts[key] ?? 0) + 1;
      resolve();
    }));
  }

  take() {
    const taken = this.counts;
    this.counts = { replies: {}, errors: {} };
    return taken;
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
let load;

const commands = {
  async calls({ target, method, metadata, count, timeout }) {
    const tally = new Tally();
    for (let i = 0; i < count; i++) await tally.call(target, method, metadata, timeout);
    return tally.take();
  },
  async hold({ target, count, fail }) {
    const errors = {};
    let failed = 0;
    const running = [];
    for (let i = 0; i < count; i++) {
      running.push(call(target, 'Hold', [], 30, (error) => {
        failed++;
        errors[error] = (errors[error] ?? 0) + 1;
      }));
      // Calls count against a limit when they have started, not when they are made.
      await pause(2);
    }
    for (const until = Date.now() + 15000; failed < fail && Date.now() < until;) await pause(10);
    // Time for more of them to fail, if they do.
    await pause(300);
    const answer = { replies: {}, errors: { ...errors } };
    for (const one of running) one.cancel();
    return answer;
  },
  async start({ target }) {
    load = { tally: new Tally(), over: false };
    load.run = (async () => {
      while (!load.over) {
        await load.tally.call(target, 'Say', [], 20);
        await pause(1);
      }
    })();
    return { replies: {}, errors: {} };
  },
  async recent() {
    return load.tally.take();
  },
  async stop() {
    load.over = true;
    await load.run;
    return load.tally.take();
  },
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    console.log(JSON.stringify(await commands[command.do](command)));
  }
  process.exit(0);
})();
