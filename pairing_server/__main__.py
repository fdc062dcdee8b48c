"""python -m pairing_server"""

from pairing_server.cli import main

if __name__ == "__main__":
    main()
