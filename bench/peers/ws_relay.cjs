// Node.js with the package ws.
const { WebSocketServer } = require("ws");

const seats = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 1024 });

server.on("connection", (socket, request) => {
  const [, pair, side] = request.url.split("/");
  const other = `${pair}/${side === "a" ? "b" : "a"}`;
  seats.set(`${pair}/${side}`, socket);
  socket.on("message", (data, binary) => seats.get(other)?.send(data, { binary }));
  socket.on("close", () => seats.delete(`${pair}/${side}`));
  socket.on("error", () => socket.terminate());
  socket.send("ready");
});
