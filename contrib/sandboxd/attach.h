/*
 * The attach mode: sandboxd called by a name that ends in /attach, as the "shell" of a terminal that leads into a sandbox. It starts
 * the daemon beside itself if that does not run, and carries connections to it over the terminal (mux.h).
 *
 * Owns the terminal while it runs, and the files beside the program: lock, socket, spool/, log. The daemon outlives it.
 */
#ifndef SANDBOXD_ATTACH_H
#define SANDBOXD_ATTACH_H

#include <stdbool.h>

/* Was the program called by that name? */
bool attach_is_wanted(const char *name);
/* Runs to the end of the link. The exit status. */
int attach_main(void);

#endif
