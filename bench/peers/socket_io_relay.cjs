// Node.js with Socket.IO, over its WebSocket transport.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const members = new Map();
const http = createServer();
const server = new Server(http, { transports: ["websocket"] });

server.on("connection", (socket) => {
  const [pair, side] = socket.handshake.query.member.split("/");
  const other = `${pair}/${side === "a" ? "b" : "a"}`;
  members.set(`${pair}/${side}`, socket);
  socket.on("message", (data) => members.get(other)?.emit("message", data));
  socket.on("disconnect", () => members.delete(`${pair}/${side}`));
  socket.emit("ready");
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 1024 });
