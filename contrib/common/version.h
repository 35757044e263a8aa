/* The version of sandboxfs and sandboxd. */
#ifndef SBX_VERSION_H
#define SBX_VERSION_H
#define SANDBOXFS_VERSION "0.1.0"
#endif
