export { type ByteSink, giveAway, openDescriptor, openForReading, readByEvents, takeOver } from './direct-socket.ts'
export { noticeSilence } from './silence.ts'
export { allocateAligned, widenSendBuffer } from './socket-memory.ts'
