/**
 * The handshake phase: fixed newstyle negotiation ("Handshake" and "Option types" of the protocol
 * document).
 *
 * Bytes in by `receive`, bytes out by `takeOutput`; `state` says when transmission begins or the
 * connection must be closed. STARTTLS and every option unknown are answered with NBD_REP_ERR_UNSUP.
 */
import type { Completion, ExportCatalog, ExportInfo, ExportSession } from '@holdfast/base'
import { isHoldfastError } from '@holdfast/base'
import { readU32, writeU16, writeU32, writeU64 } from './bytes.ts'
import * as nbd from './constants.ts'
import { metaQueries, openRequest } from './option-data.ts'
import { ReplyBytes } from './option-replies.ts'

/** Longest option data that is looked at; longer data is skipped and answered with ERR_TOO_BIG. */
export const OPTION_BYTES_MAX = 256 * 1024
/** Longest option data that is skipped: beyond, the session ends. */
const OPTION_SKIP_BYTES_MAX = nbd.PAYLOAD_BYTES_MAX
const OPTION_HEADER_BYTES = 16
const CLIENT_FLAGS_BYTES = 4
/** The id of `base:allocation`, the only context there is. */
export const BASE_ALLOCATION_ID = 1
const BASE_ALLOCATION = 'base:allocation'

/** What was agreed on when the transmission phase begins. */
export interface Terms {
  readonly structuredReplies: boolean
  readonly extendedHeaders: boolean
  /** `base:allocation` was selected for this export. */
  readonly blockStatus: boolean
}

export interface Agreement extends Terms {
  readonly session: ExportSession
}

/** The same where another shard opens the session. */
export interface AwayAgreement extends Terms {
  readonly shard: number
  readonly exportId: string | undefined
  readonly exportName: string
}

export type HandshakeState =
  | { readonly kind: 'negotiating' }
  | { readonly kind: 'transmission'; readonly agreement: Agreement }
  /** Transmission begins elsewhere, once what there is has been sent. */
  | { readonly kind: 'away'; readonly agreement: AwayAgreement }
  /** Send what there is, then close. */
  | { readonly kind: 'ended'; readonly reason: string }

type Opened =
  | { readonly info: ExportInfo; readonly session: ExportSession }
  | { readonly info: ExportInfo; readonly shard: number }

export class Handshake {
  readonly #catalog: ExportCatalog
  readonly #completion: Completion
  readonly #out = new ReplyBytes()
  #state: HandshakeState = { kind: 'negotiating' }
  /** Bytes that do not make a whole message yet. */
  #carry = new Uint8Array(64)
  #carryBytes = 0
  /** Rest of an option's data that is thrown away. */
  #skipBytes = 0
  #flagsReceived = false
  #noZeroes = false
  #structuredReplies = false
  #extendedHeaders = false
  /** Canonical name of the export for which `base:allocation` was selected last. */
  #contextExport: string | undefined
  #shuttingDown = false

  /** `completion` is handed to the session that is opened at the end. */
  constructor(catalog: ExportCatalog, completion: Completion) {
    this.#catalog = catalog
    this.#completion = completion
    this.#greet()
  }

  get state(): HandshakeState {
    return this.#state
  }

  /** From now on every option but ABORT is answered with NBD_REP_ERR_SHUTDOWN. */
  shutDown(): void {
    this.#shuttingDown = true
  }

  /** Bytes for the client, or undefined if there are none. */
  takeOutput(): Uint8Array | undefined {
    return this.#out.takeAll()
  }

  /**
   * Takes `bytes[start, end)` and returns the position up to which they were taken: less than
   * `end` only when the handshake is over; what follows belongs to the transmission phase.
   */
  receive(bytes: Uint8Array, start: number, end: number): number {
    let at = start
    while (at < end && this.#state.kind === 'negotiating') {
      if (this.#skipBytes > 0) {
        const skipped = Math.min(this.#skipBytes, end - at)
        this.#skipBytes -= skipped
        at += skipped
        continue
      }
      const wanted = this.#wantedBytes() - this.#carryBytes
      const taken = Math.min(wanted, end - at)
      this.#addToCarry(bytes, at, at + taken)
      at += taken
      if (this.#carryBytes === this.#wantedBytes()) this.#message()
    }
    return at
  }

  /** How long the carry must become before anything can be decided. */
  #wantedBytes(): number {
    if (!this.#flagsReceived) return CLIENT_FLAGS_BYTES
    if (this.#carryBytes < OPTION_HEADER_BYTES) return OPTION_HEADER_BYTES
    const length = readU32(this.#carry, 12)
    return length > OPTION_BYTES_MAX ? OPTION_HEADER_BYTES : OPTION_HEADER_BYTES + length
  }

  #addToCarry(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#carryBytes + end - start
    if (needed > this.#carry.length) {
      const larger = new Uint8Array(Math.max(needed, this.#carry.length * 2))
      larger.set(this.#carry.subarray(0, this.#carryBytes))
      this.#carry = larger
    }
    this.#carry.set(bytes.subarray(start, end), this.#carryBytes)
    this.#carryBytes = needed
  }

  #message(): void {
    if (!this.#flagsReceived) {
      this.#clientFlags(readU32(this.#carry, 0))
      this.#carryBytes = 0
      return
    }
    const magicRight =
      readU32(this.#carry, 0) === nbd.IHAVEOPT_HIGH && readU32(this.#carry, 4) === nbd.IHAVEOPT_LOW
    if (!magicRight) {
      this.#end('option without its magic')
      return
    }
    const option = readU32(this.#carry, 8)
    const length = readU32(this.#carry, 12)
    this.#carryBytes = 0
    if (length > OPTION_BYTES_MAX) this.#tooBig(option, length)
    else if (this.#shuttingDown && option !== nbd.NBD_OPT_ABORT) this.#refuseShuttingDown(option)
    else {
      const end = OPTION_HEADER_BYTES + length
      this.#option(option, this.#carry.subarray(OPTION_HEADER_BYTES, end))
    }
  }

  #clientFlags(flags: number): void {
    this.#flagsReceived = true
    this.#noZeroes = (flags & nbd.NBD_FLAG_C_NO_ZEROES) !== 0
    const known = nbd.NBD_FLAG_C_FIXED_NEWSTYLE | nbd.NBD_FLAG_C_NO_ZEROES
    if ((flags & ~known) !== 0) this.#end('unknown client flags')
  }

  #tooBig(option: number, length: number): void {
    if (option === nbd.NBD_OPT_EXPORT_NAME || length > OPTION_SKIP_BYTES_MAX) {
      this.#end('option data too long')
      return
    }
    this.#skipBytes = length
    this.#out.error(option, nbd.NBD_REP_ERR_TOO_BIG, 'option data too long')
  }

  #refuseShuttingDown(option: number): void {
    if (option === nbd.NBD_OPT_EXPORT_NAME) this.#end('server is shutting down')
    else this.#out.error(option, nbd.NBD_REP_ERR_SHUTDOWN, 'server is shutting down')
  }

  #option(option: number, data: Uint8Array): void {
    switch (option) {
      case nbd.NBD_OPT_EXPORT_NAME:
        this.#exportName(data)
        break
      case nbd.NBD_OPT_ABORT:
        this.#out.acknowledge(option)
        this.#end('client aborted')
        break
      case nbd.NBD_OPT_LIST:
        if (this.#withoutData(option, data)) this.#list()
        break
      case nbd.NBD_OPT_INFO:
      case nbd.NBD_OPT_GO:
        this.#infoOrGo(option, data)
        break
      case nbd.NBD_OPT_STRUCTURED_REPLY:
        if (this.#withoutData(option, data)) this.#structuredReply()
        break
      case nbd.NBD_OPT_EXTENDED_HEADERS:
        if (this.#withoutData(option, data)) {
          this.#extendedHeaders = true
          this.#out.acknowledge(option)
        }
        break
      case nbd.NBD_OPT_LIST_META_CONTEXT:
      case nbd.NBD_OPT_SET_META_CONTEXT:
        this.#metaContext(option, data)
        break
      default:
        this.#out.error(option, nbd.NBD_REP_ERR_UNSUP, 'option not supported')
    }
  }

  #withoutData(option: number, data: Uint8Array): boolean {
    if (data.length === 0) return true
    this.#out.error(option, nbd.NBD_REP_ERR_INVALID, 'this option takes no data')
    return false
  }

  #structuredReply(): void {
    const option = nbd.NBD_OPT_STRUCTURED_REPLY
    if (this.#extendedHeaders) {
      this.#out.error(option, nbd.NBD_REP_ERR_EXT_HEADER_REQD, 'extended headers are in use')
      return
    }
    this.#structuredReplies = true
    this.#out.acknowledge(option)
  }

  #list(): void {
    for (const info of this.#catalog.list()) this.#out.server(info.name, info.description)
    this.#out.acknowledge(nbd.NBD_OPT_LIST)
  }

  /** This option has no way to report an error: whatever is wrong ends the session. */
  #exportName(data: Uint8Array): void {
    const name = openRequest.plainName(data)
    if (name === undefined || this.#extendedHeaders) {
      this.#end('malformed NBD_OPT_EXPORT_NAME')
      return
    }
    const opened = this.#open(name)
    if (opened === undefined) {
      this.#end('no such export')
      return
    }
    const reply = new Uint8Array(this.#noZeroes ? 10 : 134)
    writeU64(reply, 0, opened.info.sizeBytes)
    writeU16(reply, 8, this.#transmissionFlags(opened.info))
    this.#out.raw(reply)
    this.#begin(opened)
  }

  #infoOrGo(option: number, data: Uint8Array): void {
    const request = openRequest.parse(data)
    if (request === undefined) {
      this.#out.error(option, nbd.NBD_REP_ERR_INVALID, 'malformed option data')
      return
    }
    const opened = option === nbd.NBD_OPT_GO ? this.#open(request.name) : undefined
    const info = option === nbd.NBD_OPT_GO ? opened?.info : this.#catalog.find(request.name)
    if (info === undefined) {
      this.#out.error(option, nbd.NBD_REP_ERR_UNKNOWN, 'no such export')
      return
    }
    this.#out.exportInfo(option, info.sizeBytes, this.#transmissionFlags(info))
    if (request.wants(nbd.NBD_INFO_NAME)) this.#out.infoText(option, nbd.NBD_INFO_NAME, info.name)
    if (request.wants(nbd.NBD_INFO_DESCRIPTION)) {
      this.#out.infoText(option, nbd.NBD_INFO_DESCRIPTION, info.description)
    }
    if (request.wants(nbd.NBD_INFO_BLOCK_SIZE)) this.#out.blockSizeInfo(option)
    this.#out.acknowledge(option)
    if (opened !== undefined) this.#begin(opened)
  }

  #metaContext(option: number, data: Uint8Array): void {
    const set = option === nbd.NBD_OPT_SET_META_CONTEXT
    // A failing SET also forgets what was selected before.
    if (set) this.#contextExport = undefined
    if (!this.#structuredReplies && !this.#extendedHeaders) {
      this.#out.error(option, nbd.NBD_REP_ERR_INVALID, 'negotiate structured replies first')
      return
    }
    const request = metaQueries(data)
    if (request === undefined || request.queries.some((query) => !query.includes(':'))) {
      this.#out.error(option, nbd.NBD_REP_ERR_INVALID, 'malformed meta context query')
      return
    }
    const info = this.#catalog.find(request.exportName)
    if (info === undefined) {
      this.#out.error(option, nbd.NBD_REP_ERR_UNKNOWN, 'no such export')
      return
    }
    // `base:` is a wildcard for listing only, and so is having no query at all.
    const matches = set
      ? request.queries.includes(BASE_ALLOCATION)
      : request.queries.length === 0 ||
        request.queries.includes(BASE_ALLOCATION) ||
        request.queries.includes('base:')
    if (matches) this.#out.metaContext(option, set ? BASE_ALLOCATION_ID : 0, BASE_ALLOCATION)
    if (matches && set) this.#contextExport = info.name
    this.#out.acknowledge(option)
  }

  #open(name: string): Opened | undefined {
    const info = this.#catalog.find(name)
    if (info === undefined) return undefined
    const shard = this.#catalog.away?.(name)
    if (shard !== undefined) return { info, shard }
    try {
      const session = this.#catalog.open(name, this.#completion)
      return { info: session.info, session }
    } catch (error) {
      if (isHoldfastError(error)) return undefined
      throw error
    }
  }

  #begin(opened: Opened): void {
    const terms = {
      structuredReplies: this.#structuredReplies || this.#extendedHeaders,
      extendedHeaders: this.#extendedHeaders,
      blockStatus: this.#contextExport === opened.info.name,
    }
    if ('session' in opened) {
      this.#state = { kind: 'transmission', agreement: { session: opened.session, ...terms } }
    } else {
      const { shard, info } = opened
      this.#state = { kind: 'away', agreement: { shard, exportId: info.id, exportName: info.name, ...terms } }
    }
  }

  #end(reason: string): void {
    this.#state = { kind: 'ended', reason }
  }

  #transmissionFlags(info: ExportInfo): number {
    let flags =
      nbd.NBD_FLAG_HAS_FLAGS |
      nbd.NBD_FLAG_SEND_FLUSH |
      nbd.NBD_FLAG_SEND_FUA |
      nbd.NBD_FLAG_CAN_MULTI_CONN |
      nbd.NBD_FLAG_SEND_CACHE
    if (info.readOnly) flags |= nbd.NBD_FLAG_READ_ONLY
    else {
      flags |=
        nbd.NBD_FLAG_SEND_TRIM | nbd.NBD_FLAG_SEND_WRITE_ZEROES | nbd.NBD_FLAG_SEND_FAST_ZERO
    }
    if (this.#structuredReplies || this.#extendedHeaders) flags |= nbd.NBD_FLAG_SEND_DF
    if (this.#extendedHeaders && this.#contextExport === info.name) {
      flags |= nbd.NBD_FLAG_BLOCK_STATUS_PAYLOAD
    }
    return flags
  }

  #greet(): void {
    const greeting = new Uint8Array(18)
    writeU32(greeting, 0, nbd.NBDMAGIC_HIGH)
    writeU32(greeting, 4, nbd.NBDMAGIC_LOW)
    writeU32(greeting, 8, nbd.IHAVEOPT_HIGH)
    writeU32(greeting, 12, nbd.IHAVEOPT_LOW)
    writeU16(greeting, 16, nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES)
    this.#out.raw(greeting)
  }
}
