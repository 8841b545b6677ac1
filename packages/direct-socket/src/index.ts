export { type ByteSink, giveAway, openDescriptor, openForReading, readByEvents, takeOver } from './direct-socket.ts'
