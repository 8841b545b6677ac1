/** The program's version, one for all packages. */
export const version = '0.1.0'
