/* `sudo -n PROGRAM ARGUMENT...` of a test: belongs to root, set-user-ID, and asks for no password. What it
 * becomes is root's, and may not be signalled by its caller, as behind the real one. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count < 3 || strcmp(arguments[1], "-n") != 0) {
        return 2;
    }
    if (setgid(0) != 0 || setuid(0) != 0) {
        perror("sudo");
        return 1;
    }
    execvp(arguments[2], arguments + 2);
    perror(arguments[2]);
    return 127;
}
