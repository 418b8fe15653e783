const VECTOR_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=";
const VECTORS: &[(&str, &str)] = &[
    ("gAAAAABrAAGibWeQFDRcgtbf4hq8Kes_pAmUAVx_Vs_C_nuQu7pBfxfxPGTHbcZYkJgU0EAKWEYJZ8Y0cDCD7VsbBziXOY-JN25pSOlocFRxOE-8Lz0xho-1bkSCA5QHdLSA8hDiUy6NDSjq8YI5dAUulO48S7uruQ", "Unscoped"),
    ("gAAAAABrAAGizTOXccH3aDPUwWCA64ogZlZK2QiQcIZoOAXfKYNNL-KPkz-XCeZCqLhzjLeeCnf2dv5NAuCquZo1G-bJwkGw6Xcm0BtKtGTz1aumZG0Kgv6TptvV3s7SRxSjOt9z1XN0lq3jGygATH-Au1vN0fM2-Q", "Domain(\"default\")"),
    ("gAAAAABrAAGimy-tQptzZqiG-BrSYAG5wTuYw2PclVviNG7mfm9Ks2KexfKQSnL7klX_zZ_2kJ0F-cehjXDN2OJ1P2Nssl3opKyIP65FJAduO09jcwI0fc5_fjdBvZ-BzWbDn_9UU7Nqnfj02usWOTTZoL3miEOTQ9PMfU9c4-THmYfpA0I8BJg", "Domain(\"a928b3099295442189c242ecc167a4ea\")"),
    ("gAAAAABrAAGiqdlYis-mhrMrjZSFMqnfB6YZyZUNyia1u4rb6BWcQXIZDammGhwvw5qhXPBtTDi7gYOd48Gg1ulk4l5kvCjM-ca6gHvhcYRmpdnGR-eE9vfy7SJxTmJzxGM2_aGHSK3SrVb2-fuO7tAFCyevrfN7UKH8Ap9yGMlIJ8QTOHFYFVM", "Project(\"a928b3099295442189c242ecc167a4ea\")"),
    ("gAAAAABrAAGimedjIBsaSaW23byzhaUlQTPR4V1P0WsvwZBRUbU7hsik6rJE5EB5Nfea0Z8_qfntz555dho03UI0GyROwA4W-MFAmxsgICKtgrplXDffZfWJtuClyU67OrEMREaI8n4m8p291-uqSuoqdfYlNv-KeQ", "System"),
    ("gAAAAABrAAGid5zb7JQWLV1RMInQmvPJq12Hs-iBrYtoyvmpS_1luPvB8jsWYIaqNaEP1nLteyKzwx_AF9Ycqc4jk9fVHnyOFFzlHzikutXytCRV4sF5LdAThrU6gc7teHDCePNzv6VIcNVy2rXFMDFftpAqReCmKmanbO0zelg2-VmaUph3nSjJPRwZHQ1kk8Jr1gW9Jyz1", "Application { project_id: \"a928b3099295442189c242ecc167a4ea\", credential_id: \"a928b3099295442189c242ecc167a4ea\" }"),
];
