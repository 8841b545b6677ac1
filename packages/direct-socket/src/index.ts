export { type ByteSink, openForReading, readByEvents, takeOver } from './direct-socket.ts'
