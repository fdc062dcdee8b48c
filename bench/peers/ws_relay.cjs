// Node.js with the package ws.
const { WebSocketServer } = require("ws");

const members = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 1024 });

server.on("connection", (socket, request) => {
  const [, pair, side] = request.url.split("/");
  const other = `${pair}/${side === "a" ? "b" : "a"}`;
  members.set(`${pair}/${side}`, socket);
  socket.on("message", (data, binary) => members.get(other)?.send(data, { binary }));
  socket.on("close", () => members.delete(`${pair}/${side}`));
  socket.on("error", () => socket.terminate());
  socket.send("ready");
});
