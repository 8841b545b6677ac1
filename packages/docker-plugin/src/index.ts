/** The Docker volume driver. */
export { defaultDriverSettings, type DriverSettings } from './driver.ts'
export { type DockerPlugin, type DockerPluginOptions, startDockerPlugin } from './plugin-server.ts'
