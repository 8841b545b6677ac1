export type { AttachmentLost, Attachments } from './attachments.ts'
export { defaultEngineSettings, type EnginePorts, type EngineSelf, type EngineSettings } from './context.ts'
export { createEngine, type Engine, type EngineOptions } from './engine.ts'
