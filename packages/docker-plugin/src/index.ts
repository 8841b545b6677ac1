/** The Docker volume driver. */
export { defaultDriverSettings, type DriverSettings } from './driver.ts'
export { type DockerPluginOptions, startDockerPlugin } from './plugin-server.ts'
